/* Code on a page that a reader can change and run.

   A notebook leaves <div data-live></div> behind the cell to change; the cell before that one is run first. On the site this
   module puts an editor in the cell's place, and MicroPython runs what is in it, loaded when it is first asked for. Wherever
   else the notebook is read, the cell stands as it is. */

const SECONDS = 10; // that code may take

const STYLE = `
.live-code textarea { width: 100%; padding: .5em; font: .8em/1.4 monospace; color: inherit; background: transparent;
  border: 1px solid gray; tab-size: 4; }
.live-code button { margin: .25em .5em .25em 0; font: inherit; color: inherit; background: none; border: 1px solid;
  border-radius: 4px; padding: .2rem .7rem; }
.live-code pre { font-size: .72em; white-space: pre-wrap; }`;

function html(name, attributes, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/** Tells each line that the code prints, then that it is done; a function that ends it. */
function run(code, tell, done) {
  const worker = new Worker(new URL("live_worker.js", import.meta.url), {type: "module"});
  const end = (last) => {
    clearTimeout(limit);
    worker.terminate();
    if (last) tell(last);
    done();
  };
  const limit = setTimeout(() => end(`Ended after ${SECONDS} seconds.`), SECONDS * 1000);
  worker.onerror = () => end("Python could not be loaded.");
  worker.onmessage = ({data}) => (data.done ? end() : tell(data.line));
  worker.postMessage(code);
}

/** A new line begins where the one before it does. */
function keepIndentation(event) {
  const {value, selectionStart} = event.target;
  const line = value.slice(value.lastIndexOf("\n", selectionStart - 1) + 1, selectionStart);
  event.preventDefault();
  event.target.setRangeText(`\n${line.match(/^ */)[0]}${line.trimEnd().endsWith(":") ? "    " : ""}`, selectionStart, event.target.selectionEnd, "end");
}

function mount(place) {
  const cell = place.previousElementSibling;
  const [before, start] = [cell.previousElementSibling, cell].map((one) => one.querySelector("pre.sourceCode").textContent.trimEnd());
  const output = html("pre", {"aria-live": "polite"}, cell.querySelector(".cell-output")?.textContent.trim() ?? "");
  const code = html("textarea", {"aria-label": "Python code", spellcheck: "false", rows: start.split("\n").length + 2});
  const [go, again] = ["Run", "Start again"].map((name) => html("button", {type: "button"}, name));
  code.value = start;
  again.onclick = () => (code.value = start);
  go.onclick = () => {
    go.disabled = true;
    output.textContent = "";
    run(`${before}\n\n${code.value}\n`, (line) => output.append(`${line}\n`), () => (go.disabled = false));
  };
  code.onkeydown = (event) => {
    if (event.key !== "Enter") return;
    if (event.shiftKey || event.ctrlKey) {
      event.preventDefault();
      go.click();
    } else {
      keepIndentation(event);
    }
  };
  place.replaceChildren(html("div", {class: "live-code"}, code, go, again, output));
  cell.hidden = true;
}

document.head.append(html("style", {}, STYLE));
document.querySelectorAll("[data-live]").forEach(mount);
