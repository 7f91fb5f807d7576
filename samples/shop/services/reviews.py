"""Reviews in three versions: v1 has no stars, v2 black stars, v3 red stars. Stars come from ``ratings``."""

from __future__ import annotations

from plain import INSTANCE, VERSION, Reply, Request, fetch, serve

RATINGS = "http://ratings:9080"
TEXTS = ("Holds whatever swims into it.", "A fine net, if a little wide in the mesh.")
COLOURS = {"v2": "black", "v3": "red"}


def answer(request: Request) -> Reply:
    if not request.path.startswith("/reviews/"):
        return Reply({"error": f"no page {request.path}"}, status=404)
    number = request.path.rsplit("/", 1)[1]
    reviews: list[dict[str, object]] = [{"text": text} for text in TEXTS]
    if VERSION in COLOURS:
        stars = fetch(f"{RATINGS}/ratings/{number}")["stars"]
        for review, count in zip(reviews, stars, strict=False):
            review.update(stars=count, colour=COLOURS[VERSION])
    return Reply({"service": "reviews", "version": VERSION, "instance": INSTANCE, "reviews": reviews})


if __name__ == "__main__":
    serve("reviews", answer, 9080)
