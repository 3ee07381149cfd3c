import { changed, dressed, el, idOf, kept, number, ours, plainKey, reveal, titled } from "./common.js";

const same = (a, b) => Boolean(a && b && a[0] === b[0] && a[1] === b[1]);

/** A table of heads. `callbacks.set` gets `selected`, `sort`, `descending` and `filter`. */
export function draw(root, data, callbacks) {
  titled(root, data.title);
  const bar = kept(root, "div", "ahd-bar-of-table");
  const input = kept(bar, "input", "ahd-filter", { type: "search", placeholder: "filter: a head, a role …", "aria-label": "filter" });
  if (input.value !== data.filter && document.activeElement !== input) input.value = data.filter;
  const count = kept(bar, "span", "ahd-count", { "aria-live": "polite" });
  const box = kept(root, "div", "ahd-table", { style: { maxHeight: `${data.max_height}px` } });
  const table = kept(box, "table", "ahd-ranked", { role: "grid", tabindex: 0, "aria-label": data.title || "heads" });
  if (changed(table, { ...data, selected: null })) fill(root, table, data, callbacks);
  count.textContent = `${table.shown.length} of ${data.rows.length}`;
  listen(input, table, data, callbacks);
  point(root, box, table, data);
}

/** Headings and rows; `table.shown` is the data of the rows. */
function fill(root, table, data, callbacks) {
  table.shown = chosenRows(data);
  kept(table, "thead", "ahd-thead").replaceChildren(headings(data, callbacks, table));
  kept(table, "tbody", "ahd-tbody").replaceChildren(...table.shown.map((row) => line(root, data, row)));
}

/** Mark the selected row; scroll to it when it has become another one. */
function point(root, box, table, data) {
  for (const old of table.querySelectorAll("tr[aria-selected=true]")) old.setAttribute("aria-selected", "false");
  const row = data.selected && document.getElementById(idOf(root, ...data.selected)), now = String(data.selected);
  if (row) row.setAttribute("aria-selected", "true");
  dressed(table, { "aria-activedescendant": row?.id });
  if (box.dataset.shown !== now) reveal(box, row, table.querySelector("thead").offsetHeight);
  box.dataset.shown = now;
}

const columnsOf = (data) => [{ key: "rank", label: "rank", digits: 0 }, { key: "head", label: "head" }, ...data.columns];

// ---- what is shown

/** Rows with their rank, filtered and sorted; what has no value is last, either way. */
function chosenRows(data) {
  const wanted = data.filter.trim().toLowerCase();
  const rows = data.rows.map((row, i) => ({ ...row, rank: i + 1 })).filter((row) => texts(row).some((text) => text.includes(wanted)));
  const order = (a, b) => compare(key(a[data.sort]), key(b[data.sort]), data.descending ? -1 : 1) || a.rank - b.rank;
  return rows.sort(order);
}

const name = (head) => head.join(".");
const texts = (row) => [name(row.head), ...Object.values(row).filter((value) => typeof value === "string")].map((text) => text.toLowerCase());

/** What a value is sorted by: an interval by its lower end, a head by its layer, then its number. */
const key = (value) => (Array.isArray(value) ? value : [value ?? null]);

function compare(a, b, sign) {
  for (let i = 0; i < a.length; i++) {
    if (a[i] === b[i]) continue;
    if (a[i] === null || a[i] === "") return 1;
    if (b[i] === null || b[i] === "") return -1;
    return sign * (typeof a[i] === "string" ? a[i].localeCompare(b[i]) : a[i] - b[i]);
  }
  return 0;
}

// ---- rows

function headings(data, callbacks, table) {
  const heading = ({ key, label }) => {
    const here = key === data.sort, way = data.descending ? "descending" : "ascending";
    const button = el("button", { type: "button", "data-key": key }, label, el("span", { "aria-hidden": "true" }, here ? (data.descending ? " ▼" : " ▲") : ""));
    button.onclick = () => callbacks.set({ sort: key, descending: here ? !data.descending : false });
    const words = data.rows.some((row) => isText(row[key]));
    return el("th", { scope: "col", class: words && "ahd-text", "aria-sort": here ? way : "none" }, button);
  };
  const focused = table.querySelector("th :focus")?.dataset.key;
  if (focused) requestAnimationFrame(() => table.querySelector(`[data-key="${focused}"]`)?.focus({ preventScroll: true }));
  return el("tr", {}, ...columnsOf(data).map(heading));
}

function line(root, data, row) {
  const cells = columnsOf(data).map((column) => el("td", { class: isText(row[column.key]) && "ahd-text" }, shown(row[column.key], column)));
  return el("tr", { id: idOf(root, ...row.head), "data-at": row.head.join(","), "aria-selected": "false" }, ...cells);
}

const isText = (value) => typeof value === "string";

function shown(value, { key, digits, signed }) {
  if (isText(value)) return value;
  if (key === "head") return name(value);
  if (Array.isArray(value)) return value.map((part) => number(part, digits, signed)).join(" to ");
  return number(value, digits, signed);
}

// ---- pointer and keys

function listen(input, table, data, callbacks) {
  input.oninput = () => callbacks.set({ filter: input.value });
  input.onkeydown = (event) => event.stopPropagation();
  table.onclick = (event) => {
    const at = event.target.closest("[data-at]")?.dataset.at.split(",").map(Number);
    if (at) callbacks.set({ selected: at });
  };
  table.onkeydown = (event) => {
    const to = moved(plainKey(event), table.shown, data.selected);
    if (!to) return;
    ours(event);
    data.selected = to;
    callbacks.set({ selected: to });
  };
}

function moved(key, rows, selected) {
  const here = rows.findIndex((row) => same(row.head, selected)), last = rows.length - 1;
  const to = { ArrowUp: here - 1, ArrowDown: here + 1, PageUp: here - 10, PageDown: here + 10, Home: 0, End: last }[key];
  return to === undefined || last < 0 ? null : rows[Math.min(last, Math.max(0, here < 0 ? 0 : to))].head;
}
