"""A fourth version of reviews in a few lines: asks ratings for stars, as if it were in the cluster."""

import http.server
import json
import urllib.request


class Reviews(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        try:
            with urllib.request.urlopen("http://ratings:9080/ratings/0", timeout=5) as answer:
                stars = json.load(answer)["ratings"]["Reviewer1"]
            review = {"reviewer": "Reviewer4", "text": "Joined by lateen run.", "rating": {"stars": stars, "color": "blue"}}
        except OSError as error:
            review = {"reviewer": "Reviewer4", "text": f"No stars: {error}"}
        body = json.dumps({"id": "0", "podname": "reviews-v4", "reviews": [review]}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


http.server.ThreadingHTTPServer(("0.0.0.0", 9080), Reviews).serve_forever()
