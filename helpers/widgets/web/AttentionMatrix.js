export function draw(element) { element.textContent = "AttentionMatrix"; }
