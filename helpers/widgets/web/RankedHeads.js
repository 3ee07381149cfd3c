export function draw(element) { element.textContent = "RankedHeads"; }
