() => {
  // Gradio's radio buttons have different names, so browsers do not step through them with the arrow keys.
  const directions = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
  document.addEventListener("keydown", (event) => {
    const direction = directions[event.key];
    const group = event.target.closest(".pills, .lines");
    if (!direction || !group || event.target.type !== "radio") return;
    event.preventDefault();
    const buttons = [...group.querySelectorAll("input[type=radio]")];
    const next = buttons[(buttons.indexOf(event.target) + direction + buttons.length) % buttons.length];
    next.focus();
    next.click();
  });
}
