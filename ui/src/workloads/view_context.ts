/** The view that a link in the list starts from; outside the list it is the default view. */

import { createContext } from "preact";
import { useContext } from "preact/hooks";
import { DEFAULT_VIEW, type View } from "../model/view";

const ViewContext = createContext<View>(DEFAULT_VIEW);

export const ViewProvider = ViewContext.Provider;

export function useView(): View {
  return useContext(ViewContext);
}
