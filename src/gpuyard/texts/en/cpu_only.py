"""Words about instances without cards, and about what leaves the yard."""

TEXTS: dict[str, str] = {
    "error.cpu_only_refused": "It cannot be started without its cards: {why}.",
    "word.why.not_instance": "only instances can; a job or a service needs what it was made for",
    "word.why.on_spot": "spot is a price of cards; launch it on demand",
    "word.why.no_price": "this yard has no price for that; its operator sets cpu_only_per_hour in the price book",
    "error.cpu_only_switch": "{workload} is {state}: wait until it has stopped, then start it {wanted} its cards.",
    "word.wanted.with": "with",
    "word.wanted.without": "without",
    "reason.no_cpu_only_price": "the price book has no price for instances without cards any more",
    "cli.run.cpu_only": "An instance without its cards, at the CPU-only price: to copy data or edit files.",
    "cli.start.cpu_only": "Without its cards, at the CPU-only price: to copy data or edit files.",
    "cli.price.beside": "Beside cards: without them {cpu_only_per_hour} an hour; stopped {stopped_per_hour} an hour and {storage_per_gib_hour} for each GiB of disk; what containers send {egress_per_gib} a GiB.",
    "cli.column.sent": "sent",
    "cli.ps.cpu_only": "{offer} (CPU only)",
}
