const parts = JSON.parse(document.getElementById("data").textContent);
const again = [];
const HEADS = ["HeadGrid", "RankedHeads"];

// A head that is selected in the grid is selected in the table, too.
function changed(part, changes) {
  const linked = HEADS.includes(part.kind) && "selected" in changes ? parts.filter(({ kind }) => HEADS.includes(kind)) : [part];
  for (const other of linked) Object.assign(other.data, other === part ? changes : { selected: changes.selected });
  for (const ask of again) ask();
}

for (const root of document.querySelectorAll("[data-part]")) {
  const part = parts[root.dataset.part];
  const callbacks = { set: (changes) => changed(part, changes) };
  again.push(live(root, () => DRAW[part.kind](root, part.data, callbacks)).again);
}
