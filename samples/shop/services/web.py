"""The storefront: pages for people, JSON for programs; it knows products, reviews and payments by name."""

from __future__ import annotations

import html
import json
from http.cookies import SimpleCookie
from typing import Any

from plain import VERSION, Reply, Request, fetch, serve

PRODUCTS = "http://products:9080"
REVIEWS = "http://reviews:9080"
PAYMENTS = "http://payments:9080"

PAGE = """<!doctype html><html><head><meta charset="utf-8"><title>{title}</title><style>
body{{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem}}
.red{{color:#c00}} small{{color:#666}} li{{margin:.4rem 0}}
</style></head><body><h1>{title}</h1>{body}
<p><small>storefront {version}; <a href="/">all products</a>; signed in as {user}:
<a href="?user=jason">become jason</a>, <a href="?user=">sign out</a></small></p></body></html>"""


def user_of(request: Request) -> str:
    """Who is signed in: the query (a click on "become"), the cookie, or the shop's own header."""
    cookie = SimpleCookie(request.headers.get("cookie", "")).get("user")
    name = request.query.get("user") or (cookie.value if cookie else request.headers.get("end-user", ""))
    if request.query.get("user") == "":
        return ""
    return "".join(c for c in name if c.isalnum())


def product_data(number: str, user: str) -> dict[str, Any]:
    """A product, its stock and its reviews; a service that fails leaves its error in its place."""
    headers = {"end-user": user} if user else {}
    data: dict[str, Any] = {"product": fetch(f"{PRODUCTS}/products/{number}")}
    try:
        data["reviews"] = fetch(f"{REVIEWS}/reviews/{number}", headers)
    except Reply as failed:
        data["reviews"] = {"error": json.loads(failed.body)["error"], "status": failed.status}
    return data


def reviews_html(reviews: dict[str, Any]) -> str:
    if "error" in reviews:
        return "<p>Reviews are not available just now.</p>"
    rows = []
    for review in reviews["reviews"]:
        stars = "★" * review["stars"] + "☆" * (5 - review["stars"]) if "stars" in review else ""
        colour = html.escape(review.get("colour", ""))
        rows.append(f'<li>{html.escape(review["text"])} <span class="{colour}">{stars}</span></li>')
    return f"<ul>{''.join(rows)}</ul><p><small>from reviews {html.escape(reviews['version'])}</small></p>"


def page(title: str, body: str, user: str) -> Reply:
    text = PAGE.format(
        title=html.escape(title), body=body, version=VERSION, user=html.escape(user) or "nobody"
    )
    reply = Reply(text, kind="text/html; charset=utf-8")
    reply.headers["set-cookie"] = f"user={user}; Path=/"
    return reply


def answer(request: Request) -> Reply:
    user = user_of(request)
    if request.path == "/":
        items = fetch(f"{PRODUCTS}/products")["products"]
        rows = "".join(f'<li><a href="/product/{p["id"]}">{html.escape(p["title"])}</a></li>' for p in items)
        return page("The Net Shop", f"<ul>{rows}</ul>", user)
    if request.path.startswith("/product/"):
        data = product_data(request.path.rsplit("/", 1)[1], user)
        stock = data["product"].get("stock")
        left = f"<p>{stock} in stock</p>" if stock is not None else ""
        text = f"<p>{html.escape(data['product']['text'])}</p>{left}"
        return page(data["product"]["title"], f"{text}<h2>Reviews</h2>{reviews_html(data['reviews'])}", user)
    if request.path.startswith("/api/product/"):
        return Reply(product_data(request.path.rsplit("/", 1)[1], user))
    if request.path == "/api/checkout" and request.method == "POST":
        return Reply(fetch(f"{PAYMENTS}/charge", data=request.body or b"{}"))
    return Reply({"error": f"no page {request.path}"}, status=404)


if __name__ == "__main__":
    serve("web", answer, 8080)
