// The service worker of the page's try: tells the page what has come, and shows it.

self.addEventListener("install", () => self.skipWaiting());

self.addEventListener("push", (event) => {
  event.waitUntil(received(event.data ? event.data.text() : ""));
});

async function received(text) {
  const pages = await self.clients.matchAll({ type: "window", includeUncontrolled: true });
  for (const page of pages) page.postMessage({ received: text });
  // A browser takes push away from those who show nothing.
  await self.registration.showNotification("It works", {
    body: "This message came by way of your push service.",
    tag: "autopush-try",
  });
}
