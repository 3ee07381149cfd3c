export function draw(element) { element.textContent = "Download"; }
