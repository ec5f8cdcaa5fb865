// What the page asks of the engine, and its answers. The engine runs in a worker, or in the page where there is none.

let transformer = null, current = 0;

function receive({ kind, ...asked }) {
  try {
    const start = performance.now();
    if (kind === "load") {
      const tensors = readTensors(asked.weights), own = {};
      for (const [name, tensor] of Object.entries(tensors)) own[name.replace(/^model\./, "")] = tensor;
      transformer = new Transformer(own, asked.model);
      send({ kind: "loaded", vectors: vectors !== null, milliseconds: performance.now() - start });
    } else if (kind === "forward") {
      const found = transformer.forward(asked.pixels);
      current = asked.run;
      send({ kind, run: current, ...found, milliseconds: performance.now() - start }); // a copy: the backward pass reads it, too
    } else if (kind === "explain") {
      const contributions = transformer.contributions(asked.target);
      send({ kind, run: current, target: asked.target, contributions, milliseconds: performance.now() - start });
    }
  } catch (error) {
    send({ kind: "failed", text: String(error) });
  }
}
