// Maps of one forward pass, defined as in `visattn.explain`: raw attention, rollout, relevance.

/** a (n, n) times b (n, n). */
function product(a, b, n) {
  const out = new Float32Array(n * n);
  for (let i = 0; i < n; i++) {
    for (let t = 0; t < n; t++) {
      const share = a[i * n + t];
      if (share !== 0) for (let j = 0; j < n; j++) out[i * n + j] += share * b[t * n + j];
    }
  }
  return out;
}

function identity(n) {
  const out = new Float32Array(n * n);
  for (let i = 0; i < n; i++) out[i * n + i] = 1;
  return out;
}

/** What is derived from a forward pass: layers and heads are counted from 0, head null is the mean of all. */
class Maps {
  constructor({ attention }, { depth, heads, grid }) {
    const count = 1 + grid[0] * grid[1];
    Object.assign(this, { attention, depth, heads, count, rolled: [], relevances: new Map() });
  }

  /** The weights (N) that the token `query` gives to all tokens; token 0 is the class token. */
  raw(layer, head, query) {
    const { attention, heads, count } = this, out = new Float32Array(count);
    for (const h of head === null ? Array(heads).keys() : [head]) {
      const row = ((layer * heads + h) * count + query) * count;
      for (let j = 0; j < count; j++) out[j] += attention[row + j] / (head === null ? heads : 1);
    }
    return out;
  }

  /** Attention rollout through the layers 0 to `last` (Abnar and Zuidema 2020): the row (N) of a token. */
  rollout(last, query) {
    const { count } = this;
    for (let layer = this.rolled.length; layer <= last; layer++) {
      const passed = new Float32Array(count * count);
      for (let i = 0; i < count; i++) {
        const row = this.raw(layer, null, i);
        row[i] += 1;
        const sum = row.reduce((a, b) => a + b, 0);
        passed.set(row.map((weight) => weight / sum), i * count);
      }
      this.rolled.push(layer ? product(passed, this.rolled[layer - 1], count) : passed);
    }
    return this.rolled[last].subarray(query * count, (query + 1) * count);
  }

  /** Keep the layers' contributions Ā to a class (depth, N, N): R ← R + Ā R from R = I (Chefer 2021, eq. 6). */
  explain(target, contributions) {
    const { count, depth } = this, found = [];
    let relevance = identity(count);
    for (let layer = 0; layer < depth; layer++) {
      const more = product(contributions.subarray(layer * count * count, (layer + 1) * count * count), relevance, count);
      relevance = relevance.map((value, n) => value + more[n]);
      found.push(relevance);
    }
    this.relevances.set(target, found);
  }

  /** The relevance of all tokens (N) for a class, through the layers 0 to `last`; null before `explain`. */
  relevance(target, last) {
    const row = this.relevances.get(target)?.[last].slice(0, this.count) ?? null;
    if (row) row[0] -= 1;
    return row;
  }
}
