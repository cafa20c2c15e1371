import { readDetailView, detailViewUrl, type DetailView } from "../model/detail_view";
import { currentUrl, navigate, useRoute } from "../router";

/** The detail view in the URL, and a setter that replaces the current history entry. */
export function useDetailView(): [DetailView, (next: Partial<DetailView>) => void] {
  const detailView = readDetailView(useRoute().query);
  return [detailView, (next) => navigate(detailViewUrl(currentUrl(), { ...detailView, ...next }), { replace: true })];
}
