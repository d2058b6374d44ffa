import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

// Where `bpmgate demo` runs, for `npm run dev`.
const gateway = "http://127.0.0.1:8000";

export default defineConfig({
  base: "/demo/",
  plugins: [react()],
  // The client has its own copies, for its tests.
  resolve: { dedupe: ["react", "@tanstack/react-query"] },
  server: {
    proxy: { "/api": gateway, "/demo/config.json": gateway },
  },
  build: {
    // The content security policy allows no `data:` but for the diagram's font.
    assetsInlineLimit: 0,
    // bpmn-js is large, and loaded only with the first diagram.
    chunkSizeWarningLimit: 700,
    // What is in it is its authors', who want to be named.
    license: { fileName: "licenses.md" },
  },
});
