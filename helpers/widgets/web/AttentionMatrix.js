import { bytesOf, colourBar, el, hideTip, kept, number, ours, plainKey, ramp, seen, shade, showTip, titled } from "./common.js";

const READABLE = 12; // pixels a row needs for its token

/** Query by key. `callbacks.set` gets `query`. */
export function draw(root, data, callbacks) {
  titled(root, data.title);
  const frame = kept(root, "div", "ahd-matrix", {
    tabindex: 0, role: "application", "aria-roledescription": "attention matrix",
    "aria-label": `${data.title || "attention"}, ${data.tokens.length} tokens, query by key; arrow keys read, Enter chooses a row`,
  });
  const said = kept(root, "div", "ahd-said", { "aria-live": "polite" });
  const legend = kept(root, "div", "ahd-legend");
  const size = sizes(root, data);
  paint(root, frame, data, size);
  labels(frame, data, size);
  outline(frame, "ahd-query", data.query === null ? null : [data.query, 0, data.query + 1], size);
  const bar = colourBar(ramp(root, "size"), "0", number(data.limit, 2), "attention of the query (row) on the key (column)");
  legend.replaceChildren(...(data.tokens.length ? [bar] : [el("span", {}, "No matrix yet.")]));
  listen(frame, said, data, size, callbacks);
}

/** Length of a side, and the room for labels at its left and above it. */
function sizes(root, data) {
  const n = data.tokens.length || 1;
  const longest = Math.max(1, ...data.tokens.map((token) => seen(token).length));
  const room = Math.min(96, 14 + 7 * longest, Math.floor(root.clientWidth / 4));
  const side = (margin) => Math.max(60, Math.min(root.clientWidth - margin - 4, data.max_height - margin));
  const words = side(room) / n >= READABLE;
  const margin = words ? room : 34;
  const cell = Math.min(34, side(margin) / n);
  return { n, words, margin, cell: cell >= 2 ? Math.floor(cell) : cell, side: (cell >= 2 ? Math.floor(cell) : cell) * n };
}

// ---- the picture

const decoded = new WeakMap();

/** The weights, decoded when they are others than before. */
function weightsOf(frame, data) {
  if (decoded.get(frame)?.text !== data.weights) {
    decoded.set(frame, { text: data.weights, values: new Float32Array(bytesOf(data.weights).buffer) });
  }
  return decoded.get(frame).values;
}

function paint(root, frame, data, { n, margin, side }) {
  const canvas = kept(frame, "canvas", "ahd-canvas", { "aria-hidden": "true" });
  const pixels = Math.max(1, Math.round(side * (window.devicePixelRatio || 1)));
  frame.style.width = frame.style.height = `${margin + side}px`;
  Object.assign(canvas.style, { left: `${margin}px`, top: `${margin}px`, width: `${side}px`, height: `${side}px` });
  canvas.width = canvas.height = pixels;
  if (!data.tokens.length) return;
  const colours = ramp(root, "size"), image = new ImageData(pixels, pixels);
  fill(image, weightsOf(frame, data), n, colours.map(rgb), data.limit);
  canvas.getContext("2d").putImageData(image, 0, 0);
}

const rgb = (colour) => [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));

/** Each pixel has the colour of the largest weight it covers, so that a single one is seen at any size. */
function fill(image, weights, n, colours, limit) {
  const size = image.width, spans = [...Array(size).keys()].map((i) => span(i, n / size));
  for (let y = 0; y < size; y++) {
    for (let x = 0; x < size && spans[x][0] < spans[y][1]; x++) {
      const [r, g, b] = shade(colours, largest(weights, n, spans[y], spans[x]) / limit), at = 4 * (y * size + x);
      image.data[at] = r, image.data[at + 1] = g, image.data[at + 2] = b, image.data[at + 3] = 255;
    }
  }
}

const span = (i, step) => [Math.floor(i * step), Math.max(Math.floor(i * step) + 1, Math.ceil((i + 1) * step - 1e-9))];

function largest(weights, n, [q0, q1], [k0, k1]) {
  let most = 0;
  for (let q = q0; q < q1; q++) for (let k = k0; k < k1; k++) most = Math.max(most, weights[q * n + k]);
  return most;
}

// ---- labels and outlines

function labels(frame, data, { n, words, margin, cell, side }) {
  const step = words ? 1 : [1, 2, 5, 10, 20, 50, 100, 200, 500].find((every) => every * cell >= 30) ?? 1000;
  const box = kept(frame, "div", "ahd-labels", { "aria-hidden": "true" });
  const shown = data.tokens.map((token, i) => [i, words ? seen(token) : String(i)]).filter(([i]) => i % step === 0);
  const place = (i) => margin + (i + 0.5) * cell;
  const rows = shown.map(([i, text]) => el("span", { class: "ahd-y", style: { top: `${place(i)}px`, width: `${margin - 5}px` } }, el("bdi", {}, text)));
  const columns = shown.map(([i, text]) => el("span", { class: words ? "ahd-x ahd-upright" : "ahd-x", style: { left: `${place(i)}px`, [words ? "height" : "top"]: `${margin - 5 - (words ? 0 : 14)}px` } }, el("bdi", {}, text)));
  box.replaceChildren(...rows, ...columns);
  outline(frame, "ahd-frame", [0, 0, n, n], { margin, cell });
}

/** A box over some cells: [row, first column, columns, rows]; none for null. */
function outline(frame, name, cells, { margin, cell }) {
  const box = kept(frame, "div", name, { "aria-hidden": "true" });
  box.hidden = !cells;
  if (!cells) return;
  const [row, column, columns, rows = 1] = cells;
  const edge = (value) => `${value}px`;
  Object.assign(box.style, {
    left: edge(margin + column * cell), top: edge(margin + row * cell), width: edge(columns * cell), height: edge(rows * cell),
  });
}

// ---- pointer and keys

function listen(frame, said, data, size, callbacks) {
  const inside = (value) => Math.min(size.n - 1, Math.max(0, Math.floor(value / size.cell)));
  const at = (event) => {
    const { left, top, right, bottom } = frame.querySelector(".ahd-canvas").getBoundingClientRect();
    const { clientX: x, clientY: y } = event;
    return data.tokens.length && x >= left && x < right && y >= top && y < bottom ? [inside(y - top), inside(x - left)] : null;
  };
  const leave = () => { hideTip(); cross(frame, null, size); };
  frame.onpointermove = (event) => {
    const place = at(event);
    cross(frame, place, size);
    if (place) showTip(event.clientX, event.clientY, lines(frame, data, place));
    else hideTip();
  };
  frame.onpointerleave = frame.onblur = leave;
  frame.onclick = (event) => {
    const place = at(event);
    if (place) callbacks.set({ query: place[0] });
  };
  frame.onkeydown = (event) => {
    const key = plainKey(event), here = frame.cursor ?? [data.query ?? size.n - 1, 0];
    if (key === "Escape") leave();
    const to = data.tokens.length ? moved(key, size.n - 1, here) : null;
    if (!to && key !== "Enter" && key !== " ") return;
    ours(event);
    if (!to) return callbacks.set({ query: here[0] });
    cross(frame, to, size);
    const { left, top } = frame.getBoundingClientRect(), text = lines(frame, data, to);
    said.textContent = text.join(", ");
    showTip(left + size.margin + (to[1] + 1) * size.cell, top + size.margin + to[0] * size.cell, text);
  };
}

function moved(key, last, [q, k]) {
  const to = {
    ArrowUp: [q - 1, k], ArrowDown: [q + 1, k], ArrowLeft: [q, k - 1], ArrowRight: [q, k + 1], Home: [q, 0], End: [q, q],
    PageUp: [q - 20, k], PageDown: [q + 20, k],
  }[key];
  return to ? to.map((place) => Math.min(last, Math.max(0, place))) : null;
}

/** The crosshair at [query, key]; none for null. */
function cross(frame, place, size) {
  frame.cursor = place;
  outline(frame, "ahd-cross-row", place && [place[0], 0, size.n], size);
  outline(frame, "ahd-cross-column", place && [0, place[1], 1, size.n], size);
}

function lines(frame, data, [q, k]) {
  const weight = k > q ? "not visible: the key comes later" : number(weightsOf(frame, data)[q * data.tokens.length + k], 4);
  return [weight, `from query ${q}  ${seen(data.tokens[q])}`, `to key ${k}  ${seen(data.tokens[k])}`];
}
