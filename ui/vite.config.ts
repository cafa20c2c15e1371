import { defineConfig } from "vite";

// Two pages: the application and the API documentation. Everything is served from the same origin under a
// strict Content-Security-Policy, so nothing may be inlined: no script, no style, no asset as a data URL.
export default defineConfig({
  base: "./", // the server puts its base path in front, see api/resources/pages.py
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  build: {
    outDir: "../src/watchbill/api/page",
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    license: { fileName: "licenses.md" },
    target: "es2022",
    cssTarget: ["chrome123", "firefox120", "safari17.5"],
    chunkSizeWarningLimit: 1600,
    rollupOptions: { input: { index: "index.html", docs: "docs.html" } },
  },
  server: { proxy: { "^/(api|openapi.json|contract)": "http://127.0.0.1:8600" } },
});
