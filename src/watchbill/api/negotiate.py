"""Which of the offered media types a request's `Accept` prefers."""

from watchbill.errors import Unacceptable


def choose(accept: str | None, offers: tuple[str, ...]) -> str:
    """The first offer unless `Accept` ranks another higher; of equal ones the one that it names more
    exactly. Raises Unacceptable."""
    if accept is None or not accept.strip():
        return offers[0]
    ranges = [_read(part) for part in accept.split(",") if part.strip()]
    ranked = [(_rank(offer, ranges), -position, offer) for position, offer in enumerate(offers)]
    (quality, _), _, best = max(ranked)
    if quality <= 0:
        raise Unacceptable(
            "None of the media types asked for is offered.",
            details=f"Offered: {', '.join(offers)}.",
        )
    return best


def _read(part: str) -> tuple[str, float]:
    media_range, *parameters = (piece.strip().lower() for piece in part.split(";"))
    quality = 1.0
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            quality = _quality(value.strip())
    return media_range, quality


def _quality(text: str) -> float:
    """RFC 9110 knows 0 to 1 with at most three decimals; what is none of these asks for nothing."""
    try:
        quality = float(text) if len(text) <= 5 else 0.0
    except ValueError:
        return 0.0
    return quality if 0.0 <= quality <= 1.0 else 0.0


def _rank(offer: str, ranges: list[tuple[str, float]]) -> tuple[float, int]:
    """Quality and exactness of the most exact range that covers the offer; (0, 0) where none does."""
    patterns = {offer: 2, f"{offer.partition('/')[0]}/*": 1, "*/*": 0}
    matching = [(patterns[name], quality) for name, quality in ranges if name in patterns]
    if not matching:
        return 0.0, 0
    exactness, quality = max(matching)
    return quality, exactness
