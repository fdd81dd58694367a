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
    "word.of.unknown_token": "from this address, with tokens that are none",
    "word.of.read": "of this token, that read",
    "word.of.change": "of this token, that change something",
    "word.of.launch": "of this token, that launch",
    "word.of.enter": "of this token, that go into workloads",
    "cli.rates.help": "See and set how often one token may ask.",
    "cli.rates.list": "List the rate limits, by class of actions.",
    "cli.rates.set": "Set the rate limit of a class of actions, for each token.",
    "cli.rates.class": "read, change, launch, or enter (commands, tunnels, files and logs of workloads).",
    "cli.rates.per_second": "How many a second; none for no limit.",
    "cli.rates.burst": "How many at once, after a quiet time.",
    "cli.column.action_class": "actions",
    "cli.column.per_second": "a second",
    "cli.column.burst": "at once",
}
