"""Placement: its terms, how cards are shared, and when."""

TEXTS: dict[str, str] = {
    "error.invalid_weight": "'{value}' is no weight: write TERM=N with a whole number up to {most} and one of {known}.",
    "cli.up.sharing_window": "When slices share cards, such as 22:00-07:00 (UTC); at other times leases that are not spot get cards to themselves while there are any. none: cards are always shared.",
    "error.exclusive_fraction": "Part of a card cannot be had alone: what nobody else can use has to be paid. Ask for whole cards ({offer}), or for another --sharing.",
    "error.sharing_unavailable": "These cards are not shared by {mode} here: {reason}.",
    "word.reason.no_mps": "NVIDIA's Multi-Process Service does not hold all of them (the operator asks for it with `gpuyard up --mps`)",
    "word.reason.only_mps": "NVIDIA's Multi-Process Service holds some of them and lets nobody else on those",
    "cli.run.sharing": "How its slices share their cards; two ways never share one. time-slice: one after the other; mps: at once; exclusive: with nobody, for whole cards.",
    "cli.up.weight": "How much a term of the placement counts, such as watts=4; 0 for not at all. Can be given again for another one.",
    "cli.cards.pool": "{leased} % of the cards are leased; the target is {target} %.",
    "reason.other_mode": "{node}: what is on its cards with room does not share them with this lease now",
    "why.alone": "Its cards are its own for now: outside of the hours of sharing, leases that are not spot get whole cards while there are any.",
    "why.term.lost": "use lost to expected requests",
    "why.term.waste": "rest that nothing would use",
    "why.term.stranded_cpu": "processors without cards",
    "why.term.opened_node": "opens an empty node",
    "why.term.order": "late in the order of nodes",
    "why.term.tier": "larger card than needed",
    "why.term.topology": "distance of its cards",
    "why.term.watts": "power it adds",
    "why.term.price": "price",
}
