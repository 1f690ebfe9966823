"use strict";
// Asks how the check stands, and shows the page anew once that has changed. Without this script
// the page reloads itself every few seconds.
const waiting = document.querySelector("[data-state]");
if (waiting) {
  const shown = waiting.dataset.state;
  const again = (pause) => setTimeout(ask, pause);
  const ask = async () => {
    try {
      const answer = await fetch(`${location.pathname}/state`, { cache: "no-store", credentials: "omit" });
      if (answer.ok && (await answer.json()).state !== shown) {
        location.reload();
        return;
      }
      again(answer.ok ? 2000 : 10000);
    } catch {
      again(5000);
    }
  };
  again(1500);
}
