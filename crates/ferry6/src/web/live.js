// Puts what is new in the place of what is shown. Without this the page reloads itself.
"use strict";
(() => {
  const live = document.getElementById("live");
  const age = document.getElementById("age");
  let last = Date.now();
  const opened = () => [...live.querySelectorAll("details")].map((d) => [d.id, d.open]);
  async function update() {
    if (document.hidden) return;
    try {
      const answer = await fetch("/live", { cache: "no-store", signal: AbortSignal.timeout(5000) });
      if (!answer.ok) throw new Error(answer.status);
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      const open = new Map(opened());
      fresh.querySelectorAll("details").forEach((d) => { if (open.has(d.id)) d.open = open.get(d.id); });
      const scrolled = [...live.querySelectorAll(".scroll")].map((s) => s.scrollLeft);
      live.replaceChildren(...fresh.body.childNodes);
      live.querySelectorAll(".scroll").forEach((s, at) => { s.scrollLeft = scrolled[at] || 0; });
      last = Date.now();
      document.title = live.querySelector(".bad") ? "\u2717 ferry6" : "ferry6";
    } catch { /* told below */ }
  }
  function tell() {
    const late = Math.round((Date.now() - last) / 1000);
    age.textContent = late < 6 ? "live" : `no news for ${late} s`;
    age.className = late < 6 ? "live" : "late";
  }
  setInterval(update, 2000);
  setInterval(tell, 1000);
  document.addEventListener("visibilitychange", update);
  tell();
})();
