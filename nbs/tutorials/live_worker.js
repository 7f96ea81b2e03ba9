/* Runs Python for live_code.js, off the page's own thread, so that code without an end can be ended. */

import {loadMicroPython} from "./micropython/micropython.mjs";

onmessage = async ({data}) => {
  const python = await loadMicroPython({stdout: (line) => postMessage({line}), linebuffer: true});
  try {
    python.runPython(data);
  } catch (error) {
    postMessage({line: error.message});
  }
  postMessage({done: true});
};
