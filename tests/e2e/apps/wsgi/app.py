"""The smallest web application that gunicorn serves."""

BODY = b"hello from gunicorn\n"


def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(BODY)))])
    return [BODY]
