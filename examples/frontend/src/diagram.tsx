import { useEffect, useRef, useState } from "react";
import type NavigatedViewer from "bpmn-js/lib/NavigatedViewer";
import { ErrorNotice } from "./ui";

interface Canvas {
  resized(): void;
  zoom(level: "fit-viewport", center: "auto"): number;
  addMarker(element: string, marker: string): void;
  removeMarker(element: string, marker: string): void;
}
interface Registry {
  get(element: string): unknown;
}

/** The process as its model draws it, with the activities marked where tokens are. */
export function Diagram({ xml, active = [], label }: { xml: string; active?: string[]; label: string }) {
  const place = useRef<HTMLDivElement>(null);
  const [viewer, setViewer] = useState<NavigatedViewer>();
  const [error, setError] = useState<unknown>();

  useEffect(() => {
    let shown: NavigatedViewer | undefined;
    let gone = false;
    async function show() {
      // Loaded with the first diagram, not with the page.
      const { default: Viewer } = await import("./viewer");
      if (gone || !place.current) return;
      shown = new Viewer({
        container: place.current,
        bpmnRenderer: {
          defaultFillColor: "var(--surface)",
          defaultStrokeColor: "var(--text)",
          defaultLabelColor: "var(--text)",
        },
      });
      await shown.importXML(xml);
      if (gone) return;
      setViewer(shown);
    }
    setError(undefined);
    show().catch((reason: unknown) => gone || setError(reason));
    return () => {
      gone = true;
      setViewer(undefined);
      shown?.destroy();
    };
  }, [xml]);

  useEffect(() => {
    if (!viewer || !place.current) return;
    const canvas = viewer.get<Canvas>("canvas");
    const watch = new ResizeObserver(([seen]) => {
      // On its way out of the page it has no size to fit into.
      if (!seen?.contentRect.width) return;
      canvas.resized();
      canvas.zoom("fit-viewport", "auto");
    });
    watch.observe(place.current);
    return () => watch.disconnect();
  }, [viewer]);

  const marks = active.join(" ");
  useEffect(() => {
    if (!viewer) return;
    const canvas = viewer.get<Canvas>("canvas");
    const known = marks.split(" ").filter((id) => id && viewer.get<Registry>("elementRegistry").get(id));
    for (const id of known) canvas.addMarker(id, "active");
    return () => {
      for (const id of known) canvas.removeMarker(id, "active");
    };
  }, [viewer, marks]);

  return (
    <figure className="diagram">
      <div ref={place} role="group" aria-label={label} data-active={viewer && marks} />
      <ErrorNotice error={error} />
    </figure>
  );
}
