/* The figures of "The triplet loss in ten minutes" that can be moved.

   The notebook leaves an empty <div data-figure="negatives" data-values="{...}"> behind each of its static figures. On the
   site this module fills it and hides the static one; wherever else the notebook is read, the static one stands.

   First the numbers, as pure functions, which tests compare with Python's; then the drawing. */

// The numbers

export function distance(a, b) {
  return Math.hypot(a[0] - b[0], a[1] - b[1]);
}

/** "hard", "semi-hard" or "easy", by the distances of positive and negative from the anchor. */
export function kindOfNegative(toPositive, toNegative, margin) {
  if (toNegative <= toPositive) return "hard";
  return toNegative < toPositive + margin ? "semi-hard" : "easy";
}

/** The loss of a triplet with this difference of its distances, d(a, p) - d(a, n). */
export function hinge(gap, margin) {
  return Math.max(0, gap + margin);
}

export function hingeSlope(gap, margin) {
  return gap + margin > 0 ? 1 : 0;
}

/** ln(1 + exp(gap)), which does not overflow. */
export function softplus(gap) {
  return Math.max(gap, 0) + Math.log1p(Math.exp(-Math.abs(gap)));
}

export function softplusSlope(gap) {
  return 1 / (1 + Math.exp(-gap));
}

/** The index of the largest value; of equal ones the first. */
function argmax(values) {
  return values.indexOf(Math.max(...values));
}

/** Which negative a strategy takes, by their distances from the anchor and that of the farthest positive. */
function chooseNegative(toNegatives, toPositive, strategy) {
  if (strategy === "easy") return argmax(toNegatives);
  const allowed = strategy === "hard" ? toNegatives : toNegatives.map((d) => (d > toPositive ? d : Infinity));
  const nearest = Math.min(...allowed);
  return nearest === Infinity ? argmax(toNegatives) : allowed.indexOf(nearest);
}

/** The triplets of an anchor: one with the farthest positive, or with "all" every one. */
export function chooseTriplets({anchor, positives, negatives}, strategy, margin) {
  const toPositives = positives.map((point) => distance(anchor, point));
  const toNegatives = negatives.map((point) => distance(anchor, point));
  const farthest = argmax(toPositives);
  const pairs = strategy === "all"
    ? positives.flatMap((_, positive) => negatives.map((_, negative) => [positive, negative]))
    : [[farthest, chooseNegative(toNegatives, toPositives[farthest], strategy)]];
  return pairs.map(([positive, negative]) => {
    const [toPositive, toNegative] = [toPositives[positive], toNegatives[negative]];
    return {positive, negative, toPositive, toNegative, loss: hinge(toPositive - toNegative, margin)};
  });
}

/** The mean loss of the triplets that have one. */
export function lossOf(triplets) {
  const active = triplets.filter(({loss}) => loss > 0);
  return active.reduce((sum, {loss}) => sum + loss, 0) / Math.max(active.length, 1);
}

/** What one more unit of each coordinate adds to that mean, for every point. */
export function gradientOf({anchor, positives, negatives}, triplets) {
  const active = triplets.filter(({loss}) => loss > 0);
  const gradient = {anchor: [0, 0], positives: positives.map(() => [0, 0]), negatives: negatives.map(() => [0, 0])};
  const add = (sum, from, to, sign) => {
    const length = distance(from, to);
    for (const axis of [0, 1]) sum[axis] += length > 0 ? (sign * (from[axis] - to[axis])) / length / active.length : 0;
  };
  for (const {positive, negative} of active) {
    add(gradient.anchor, anchor, positives[positive], 1);
    add(gradient.positives[positive], positives[positive], anchor, 1);
    add(gradient.anchor, anchor, negatives[negative], -1);
    add(gradient.negatives[negative], negatives[negative], anchor, -1);
  }
  return gradient;
}

// The drawing: elements

const SVG = "http://www.w3.org/2000/svg";
// To be told apart on white and on dark grey, and by people who see few colors; letters have the color of the text.
const [BLUE, VERMILION, GREEN, AMBER] = ["#3f90da", "#d55e00", "#00966e", "#ffa90e"];
const DIGITS = [BLUE, VERMILION, GREEN, "#a96bc9", "#8a8a8a"];

const STYLE = `
.moving-figure { margin: 1rem 0; max-width: 36rem; }
.moving-figure svg { display: block; width: 100%; }
.moving-figure figcaption { margin-top: .5rem; }
.moving-figure svg text { fill: currentColor; font-size: 14px; }
.moving-figure .controls { display: flex; flex-wrap: wrap; align-items: center; gap: .25rem 1rem; }
.moving-figure .controls label { display: flex; align-items: center; gap: .4rem; min-height: 2.5rem; }
.moving-figure input[type=range] { width: 10rem; }
.moving-figure button { font: inherit; color: inherit; background: none; border: 1px solid; border-radius: 4px; padding: .2rem .7rem; }
.moving-figure output, .moving-figure .numbers { font-variant-numeric: tabular-nums; }
.moving-figure .numbers { margin: .25rem 0; min-height: 3em; }
.moving-figure .point { cursor: grab; touch-action: none; outline: none; }
.moving-figure .point:focus .focus { stroke: currentColor; }
.moving-figure .axis { stroke: currentColor; opacity: .5; }
.moving-figure .runs { display: grid; grid-template-columns: 1fr 1fr; gap: 1rem; }
.moving-figure .runs .numbers { display: grid; grid-template-columns: auto 1fr; column-gap: .75rem; margin: 0; }
.moving-figure .runs dt { font-weight: normal; }
.moving-figure .runs dd { margin: 0; }
@media (prefers-reduced-motion: no-preference) { .moving-figure .glides { transition: transform .3s; } }
`;

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function html(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

/** A line with a head of its own, since a marker would not take the line's color everywhere. */
function arrow([x, y], [toX, toY], color) {
  const angle = (Math.atan2(toY - y, toX - x) * 180) / Math.PI;
  return svg("g", {class: "arrow", stroke: color, fill: color},
    svg("line", {x1: x, y1: y, x2: toX, y2: toY, "stroke-width": 3}),
    svg("path", {d: "M7,0 L-4,-5 L-4,5 Z", transform: `translate(${toX},${toY}) rotate(${angle})`}));
}

function path(points, attributes) {
  const d = points.map(([x, y], k) => `${k ? "L" : "M"}${x.toFixed(2)},${y.toFixed(2)}`).join("");
  return svg("path", {d, fill: "none", "stroke-width": 2.5, ...attributes});
}

function withDigits(value, digits) {
  return value.toFixed(digits).replace("-", "−");
}

/** A slider with its value beside it; calls `changed` with the number. */
function slider(name, {min, max, step, value, digits = 1}, changed) {
  const input = html("input", {type: "range", min, max, step, value, "aria-label": name});
  const shown = html("output", {}, withDigits(value, digits));
  input.addEventListener("input", () => {
    shown.value = withDigits(Number(input.value), digits);
    changed(Number(input.value));
  });
  return html("label", {}, `${name} `, input, shown);
}

/** Draws anew whenever the width changes, in pixels, so that letters keep their size on a phone. */
function whenSized(element, draw) {
  let width = 0;
  new ResizeObserver(() => {
    if (element.clientWidth !== width && element.clientWidth > 0) draw((width = element.clientWidth));
  }).observe(element);
}

/** From numbers to pixels: x to the right, y upwards, between these bounds. */
function scales([left, right], [bottom, top], [x0, x1], [y0, y1]) {
  return {
    x: (value) => x0 + ((value - left) / (right - left)) * (x1 - x0),
    y: (value) => y1 - ((value - bottom) / (top - bottom)) * (y1 - y0),
  };
}

// An anchor, its positives and its negatives

const PLANE = {x: [-4.4, 4.4], y: [-3.4, 3.6]};
const STRATEGIES = ["hard", "semi-hard", "easy", "all"];
const SHAPES = {
  anchor: () => svg("path", {d: "M0,-11 3,-4 10,-3 5,2 7,9 0,6 -7,9 -5,2 -10,-3 -3,-4Z", fill: "currentColor"}),
  positives: () => svg("circle", {r: 8, fill: BLUE}),
  negatives: () => svg("rect", {x: -7, y: -7, width: 14, height: 14, fill: VERMILION}),
};
const clamp = (value, [least, most]) => Math.min(most, Math.max(least, value));

function drawNegatives(figure, values) {
  const start = () => structuredClone({anchor: values.anchor, positives: values.positives, negatives: values.negatives});
  let points = start();
  let [strategy, margin, scale] = ["semi-hard", values.margin, 1];
  const picture = svg("svg", {role: "group", "aria-label": "An anchor, its positives and negatives, to be moved"});
  const [ground, arrows, movable] = [svg("g"), svg("g"), svg("g")];
  picture.append(ground, arrows, movable);
  const numbers = html("p", {class: "numbers", "aria-live": "polite"});

  const places = [
    {kind: "anchor", name: "anchor", get: () => points.anchor},
    ...values.positives.map((_, k) => ({kind: "positives", name: `positive ${k + 1}`, get: () => points.positives[k]})),
    ...values.negatives.map((_, k) => ({kind: "negatives", name: `negative ${k + 1}`, get: () => points.negatives[k]})),
  ];
  const pixels = ([x, y]) => [(x - PLANE.x[0]) * scale, (PLANE.y[1] - y) * scale];

  function move(place, x, y) {
    const point = place.get();
    [point[0], point[1]] = [clamp(x, PLANE.x), clamp(y, PLANE.y)];
    draw();
  }

  for (const place of places) {
    // The invisible disc is what a finger meets.
    place.element = svg("g", {class: "point", tabindex: 0, role: "button", "data-point": place.name},
      svg("circle", {r: 20, fill: "transparent", class: "hit"}),
      svg("circle", {r: 13, fill: "none", class: "focus", "stroke-width": 2}),
      SHAPES[place.kind]());
    movable.append(place.element);
    letDrag(place.element, picture, (x, y) => move(place, PLANE.x[0] + x / scale, PLANE.y[1] - y / scale));
    letStep(place.element, (x, y) => move(place, place.get()[0] + x, place.get()[1] + y));
  }

  function drawGround(radius) {
    const [x, y] = pixels(points.anchor);
    const ring = (name, value, attributes) => svg("circle", {class: name, cx: x, cy: y, r: value * scale, stroke: "gray", ...attributes});
    const label = (text, value) => svg("text", {x, y: y - value * scale, "text-anchor": "middle", "font-style": "italic"}, text);
    ground.replaceChildren(
      ring("outer", radius + margin, {fill: AMBER, "fill-opacity": 0.2, "stroke-dasharray": "5 4"}),
      ring("inner", radius, {fill: VERMILION, "fill-opacity": 0.25}),
      label("hard", radius - 18 / scale), label("easy", radius + margin + 6 / scale),
      ...(margin * scale > 22 ? [label("semi-hard", radius + margin - 18 / scale)] : []));
  }

  function drawArrows(triplets, radius) {
    const gradient = gradientOf(points, triplets);
    const line = (to, color) => path([pixels(points.anchor), pixels(to)], {stroke: color, "stroke-width": 1.5});
    const step = (from, slope, color) => {
      if (Math.hypot(...slope) < 1e-3) return [];
      return [arrow(pixels(from), pixels([from[0] - 0.8 * slope[0], from[1] - 0.8 * slope[1]]), color)];
    };
    const taken = (name) => [...new Set(triplets.map((triplet) => triplet[name]))];
    arrows.replaceChildren(
      ...taken("positive").map((k) => line(points.positives[k], BLUE)),
      ...taken("negative").map((k) => line(points.negatives[k], VERMILION)),
      ...step(points.anchor, gradient.anchor, "currentColor"),
      ...points.positives.flatMap((point, k) => step(point, gradient.positives[k], BLUE)),
      ...points.negatives.flatMap((point, k) => step(point, gradient.negatives[k], VERMILION)));
  }

  function draw() {
    const triplets = chooseTriplets(points, strategy, margin);
    const radius = Math.max(...points.positives.map((point) => distance(points.anchor, point)));
    drawGround(radius);
    drawArrows(triplets, radius);
    for (const {kind, name, get, element} of places) {
      const [x, y] = pixels(get());
      const negative = kind === "negatives" ? `, ${kindOfNegative(radius, distance(points.anchor, get()), margin)}` : "";
      element.setAttribute("transform", `translate(${x},${y})`);
      element.setAttribute("aria-label", `${name}${negative}, at ${get().map((value) => value.toFixed(1)).join(", ")}; arrow keys move it`);
    }
    numbers.textContent = inWords(triplets, strategy, margin);
  }

  const options = STRATEGIES.map((name) => {
    const input = html("input", {type: "radio", name: "strategy", value: name, ...(name === strategy ? {checked: ""} : {})});
    input.addEventListener("change", () => { strategy = name; draw(); });
    return html("label", {}, input, name);
  });
  const again = html("button", {type: "button"}, "Start again");
  again.addEventListener("click", () => { points = start(); draw(); });
  figure.append(
    html("div", {class: "controls", role: "radiogroup", "aria-label": "Negative taken"}, "Negative:", ...options),
    picture, numbers,
    html("div", {class: "controls"}, slider("Margin", {min: 0, max: 3, step: 0.1, value: margin}, (value) => { margin = value; draw(); }), again),
    html("figcaption", {}, "Drag any point, or step to one with the Tab key and move it with the arrow keys. The inner circle goes through the farthest positive; the outer one is larger by the margin. Arrows: where a training step moves the points. What does semi-hard take when all negatives lie within the inner circle?"));
  whenSized(picture, (width) => {
    scale = width / (PLANE.x[1] - PLANE.x[0]);
    picture.setAttribute("height", (PLANE.y[1] - PLANE.y[0]) * scale);
    draw();
  });
}

function inWords(triplets, strategy, margin) {
  const loss = lossOf(triplets).toFixed(2);
  if (strategy === "all") {
    const active = triplets.filter((triplet) => triplet.loss > 0).length;
    return `${triplets.length} triplets, ${active} of them with a loss above 0; the mean of those is ${loss}`;
  }
  const [{positive, negative, toPositive, toNegative}] = triplets;
  const terms = `max(0, ${toPositive.toFixed(2)} − ${toNegative.toFixed(2)} + ${margin.toFixed(2)})`;
  const kind = kindOfNegative(toPositive, toNegative, margin);
  return `Positive ${positive + 1} and negative ${negative + 1}, which is ${kind}: loss ${terms} = ${loss}`;
}

/** Calls `moved` with pixels of the picture while a mouse, pen or finger drags the element. */
function letDrag(element, picture, moved) {
  let grip = null;
  element.addEventListener("pointerdown", (event) => {
    const [box, own] = [picture.getBoundingClientRect(), element.getCTM()];
    grip = [own.e - (event.clientX - box.left), own.f - (event.clientY - box.top)];
    element.setPointerCapture(event.pointerId);
    element.focus({preventScroll: true});
    event.preventDefault();
  });
  element.addEventListener("pointermove", (event) => {
    if (!grip) return;
    const box = picture.getBoundingClientRect();
    moved(event.clientX - box.left + grip[0], event.clientY - box.top + grip[1]);
  });
  for (const end of ["pointerup", "pointercancel"]) element.addEventListener(end, () => { grip = null; });
  // Or Safari scrolls the page, which does not heed touch-action inside an SVG.
  element.addEventListener("touchstart", (event) => event.preventDefault(), {passive: false});
}

/** Calls `moved` with steps to the right and up, for the arrow keys; longer ones with Shift. */
function letStep(element, moved) {
  const ways = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1]};
  element.addEventListener("keydown", (event) => {
    if (!(event.key in ways)) return;
    event.preventDefault();
    moved(...ways[event.key].map((way) => way * (event.shiftKey ? 0.5 : 0.1)));
  });
}

// Hinge and soft margin

function drawLosses(figure, values) {
  let {margin, gap} = values;
  const [[least, most], top] = [[-4, 3], 4];
  const picture = svg("svg", {role: "img", "aria-label": "The loss of a triplet against the difference of its distances"});
  const numbers = html("p", {class: "numbers", "aria-live": "polite"});
  let width = 0;

  function draw() {
    const [height, left] = [Math.min(300, 0.65 * width), 30];
    const {x, y} = scales([least, most], [0, top], [left, width - 8], [8, height - 42]);
    const line = (x1, y1, x2, y2, more) => svg("line", {x1, y1, x2, y2, class: "axis", ...more});
    const text = (content, at, more) => svg("text", {x: at[0], y: at[1], "text-anchor": "middle", ...more}, content);
    const curve = (loss, more) => path(Array.from({length: 141}, (_, k) => least + (k * (most - least)) / 140)
      .filter((value) => loss(value) <= top).map((value) => [x(value), y(loss(value))]), more);
    const whole = (from, to) => Array.from({length: to - from + 1}, (_, k) => from + k);
    picture.setAttribute("height", height);
    picture.replaceChildren(
      line(left, y(0), width - 8, y(0)), line(x(0), y(0), x(0), 8, {"stroke-dasharray": "2 4"}),
      line(x(gap), y(0), x(gap), 8), line(x(-margin), y(0) - 5, x(-margin), y(0) + 5, {"stroke-width": 3}),
      ...whole(least, most).map((value) => text(withDigits(value, 0), [x(value), y(0) + 19])),
      ...whole(0, top).map((value) => text(`${value}`, [left - 12, y(value) + 5])),
      text("difference of the distances, d(a, p) − d(a, n)", [(left + width) / 2, height - 4]),
      curve((value) => hinge(value, margin), {stroke: VERMILION, class: "hinge"}),
      curve(softplus, {stroke: BLUE, class: "softplus", "stroke-dasharray": "8 4"}),
      text("hinge", [x(2.2), y(3.6) + 5]), text("soft margin", [x(2.3), y(1.5) + 5]),
      ...(hinge(gap, margin) <= top ? [svg("circle", {cx: x(gap), cy: y(hinge(gap, margin)), r: 6, fill: VERMILION})] : []),
      svg("circle", {cx: x(gap), cy: y(softplus(gap)), r: 6, fill: BLUE}));
    numbers.textContent = `At a difference of ${withDigits(gap, 1)}: hinge ${hinge(gap, margin).toFixed(2)}, slope `
      + `${hingeSlope(gap, margin)}; soft margin ${softplus(gap).toFixed(2)}, slope ${softplusSlope(gap).toFixed(2)}`;
  }

  figure.append(picture, numbers,
    html("div", {class: "controls"},
      slider("Margin", {min: 0, max: 3, step: 0.1, value: margin}, (value) => { margin = value; draw(); }),
      slider("Difference", {min: least, max: most, step: 0.1, value: gap}, (value) => { gap = value; draw(); })),
    html("figcaption", {}, "The loss of one triplet. Move the margin, and see where the hinge begins; move the difference, and read loss and slope. The slope is how strongly the triplet pulls and pushes."));
  whenSized(picture, (now) => { width = now; draw(); });
}

// Two trainings, epoch by epoch

const CURVES = {loss: ["loss", VERMILION, ""], active_share: ["active share", GREEN, "2 4"], recall: ["recall@1", BLUE, "8 4"]};

function drawTrainings(figure, values) {
  const runs = Object.entries(values.runs).map(([strategy, run]) => drawRun(strategy, run, values));
  const last = Object.values(values.runs)[0].loss.length - 1;
  const show = (epoch) => runs.forEach((run) => run.show(epoch));
  const epochs = slider("Epoch", {min: 0, max: last, step: 1, value: 0, digits: 0}, show);
  const input = epochs.querySelector("input");
  const play = html("button", {type: "button"}, "Play");
  let timer = null;
  const stop = () => { clearInterval(timer); timer = null; play.textContent = "Play"; };
  const go = (epoch) => { input.value = epoch; input.dispatchEvent(new Event("input")); };
  play.addEventListener("click", () => {
    if (timer) return stop();
    if (Number(input.value) === last) go(0);
    play.textContent = "Stop";
    timer = setInterval(() => { go(Number(input.value) + 1); if (Number(input.value) === last) stop(); }, 600);
  });
  input.addEventListener("pointerdown", stop);
  const digits = DIGITS.map((color, digit) => html("span", {}, html("span", {style: `color: ${color}`, "aria-hidden": "true"}, "● "), `${digit}`));
  figure.append(html("div", {class: "controls"}, epochs, play), html("div", {class: "runs"}, ...runs.map((run) => run.element)),
    html("div", {class: "controls"}, "Digits:", ...digits),
    html("figcaption", {}, "Embeddings of 100 held-out images, each digit on a ring of its own so that all can be seen, and below the course of both trainings. They differ only in the negatives. Move the epoch."));
}

/** One training: its column, and a function that shows an epoch of it. */
function drawRun(strategy, run, {labels, margin}) {
  const [circle, course] = [svg("svg", {role: "img", "aria-label": `Embeddings, ${strategy} negatives`}), svg("svg", {role: "img", "aria-label": `Course of the training with ${strategy} negatives`})];
  const dots = labels.map((digit) => svg("circle", {r: 3, fill: DIGITS[digit], class: "glides"}));
  const numbers = html("dl", {class: "numbers"});
  let [epoch, width] = [0, 0];

  function show(now) {
    epoch = now;
    const unit = width / 2.8;
    dots.forEach((dot, k) => {
      const [radius, angle] = [(1 + 0.07 * labels[k]) * unit, (run.degrees[epoch][k] * Math.PI) / 180];
      dot.style.transform = `translate(${width / 2 + radius * Math.cos(angle)}px, ${width / 2 - radius * Math.sin(angle)}px)`;
    });
    drawCourse();
    const percent = (share) => `${Math.round(100 * share)}%`;
    const rows = {loss: run.loss[epoch].toFixed(2), active_share: percent(run.active_share[epoch]), recall: percent(run.recall[epoch])};
    numbers.replaceChildren(...Object.entries(rows).flatMap(([key, value]) => [
      html("dt", {}, html("span", {style: `color: ${CURVES[key][1]}`, "aria-hidden": "true"}, "━ "), CURVES[key][0]),
      html("dd", {"data-number": key}, value)]));
  }

  function drawCourse() {
    const [height, top, left] = [120, 1.7, 28];
    const {x, y} = scales([0, run.loss.length - 1], [0, top], [left, width - 6], [6, height - 20]);
    const line = (x1, y1, x2, y2, more) => svg("line", {x1, y1, x2, y2, class: "axis", ...more});
    course.setAttribute("height", height);
    course.replaceChildren(
      line(left, y(0), width - 6, y(0)), line(left, y(margin), width - 6, y(margin), {"stroke-dasharray": "2 4"}),
      ...[0, 0.5, 1, 1.5].map((value) => svg("text", {x: left - 5, y: y(value) + 5, "text-anchor": "end"}, `${value}`)),
      svg("text", {x: (left + width) / 2, y: height - 3, "text-anchor": "middle"}, "epoch"),
      line(x(epoch), y(0), x(epoch), 6, {"stroke-width": 2}),
      ...Object.entries(CURVES).map(([key, [, stroke, dashes]]) =>
        path(run[key].map((value, k) => [x(k), y(value)]), {stroke, "stroke-dasharray": dashes, "stroke-width": 2})));
  }

  whenSized(circle, (now) => {
    width = now;
    circle.setAttribute("height", width);
    circle.replaceChildren(svg("circle", {cx: width / 2, cy: width / 2, r: width / 2.8, fill: "none", class: "axis", "stroke-dasharray": "2 4"}), ...dots);
    show(epoch);
  });
  const title = html("div", {}, html("strong", {}, `${strategy[0].toUpperCase()}${strategy.slice(1)} negatives`));
  return {element: html("div", {"data-run": strategy}, title, circle, numbers, course), show};
}

// Into the page

const FIGURES = {negatives: drawNegatives, losses: drawLosses, trainings: drawTrainings};

function mount(place) {
  const figure = html("figure", {class: "moving-figure"});
  FIGURES[place.dataset.figure](figure, JSON.parse(place.dataset.values));
  place.replaceChildren(figure);
  // The static figure is the output of the cell before.
  const before = place.closest(".cell")?.previousElementSibling?.querySelector(".cell-output-display");
  if (before?.querySelector("img")) before.hidden = true;
}

if (typeof document !== "undefined") {
  document.head.append(html("style", {}, STYLE));
  document.querySelectorAll("[data-figure]").forEach(mount);
}
