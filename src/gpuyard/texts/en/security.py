"""What TLS, rate limits, logins and fetches say."""

TEXTS: dict[str, str] = {
    "error.tls_unusable": "TLS cannot use {path}: {reason}.",
    "error.yard_not_trusted": "The yard at {url} shows a certificate that is not trusted ({reason}): log in again with --ca-sha256, "
    "as its operator told it, or with --ca FILE.",
    "cli.up.tls": "Speak TLS, with certificates of the yard's own authority that are renewed by themselves.",
    "cli.up.tls_cert": "Speak TLS with this certificate chain (PEM); read again whenever it changes.",
    "cli.up.tls_key": "The private key of --tls-cert (PEM, not encrypted).",
    "cli.up.tls_name": "A further host name or address for the yard's own certificate; may be repeated.",
    "cli.up.plain_http": "Listen beyond this machine without TLS, because something in front of the yard speaks it.",
    "cli.up.ca": "SHA-256 of its authority, which clients pin: {sha256}",
    "cli.login.ca": "Trust this authority alone (a PEM file), and remember it.",
    "cli.login.ca_sha256": "Fetch the yard's own authority, trust it only where this is its SHA-256, and remember it.",
}
