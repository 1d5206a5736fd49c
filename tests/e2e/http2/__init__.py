"""HTTP/2's MUSTs as checks from outside: `frames` writes bytes, `client` sends and judges, the rest are the checks."""
