"""Moves of running leases, and how much of the pool is leased."""

TEXTS: dict[str, str] = {
    "reason.moved": "It was moved to other cards, and is being started there.",
    "why.moved_blocked": "Replica {replica} is on {node} ({cards}). It was moved there from {start}, so that something that fitted nowhere could start.",
    "why.moved_low_load": "Replica {replica} is on {node} ({cards}). It was moved there from {start} while load was low, to empty a node.",
    "why.moved_peak": "Replica {replica} is on {node} ({cards}). It was moved there from {start} when the hours in which cards are shared were over, so that it and those it left have whole cards.",
    "why.moved_back": "Replica {replica} is on {node} ({cards}). It was to move to {start}, could not be started there, and went back.",
    "why.move_free": "What a move takes is not billed: neither the time from the request to end until it runs again, nor a new start.",
    "why.moving": "Replica {replica} is on its way from {start} to {end}: the target is kept for it, its work is saved, and it goes on there.",
    "why.room_is_made": "Room is being made for it: {count} running leases are on their way to other cards.",
    "cli.up.moves_window": "When nodes may be emptied by moving leases, such as 01:00-06:00 (UTC); none for never.",
    "cli.up.moves_an_hour": "How many leases may be moved in an hour; 0 for none at all.",
    "cli.up.moves_of_tenant": "How many leases of one tenant may be on their way at once.",
    "cli.up.use_target": "How much of the pool is to be leased, in percent; shown beside what is.",
    "cli.column.pool": "leased",
    "cli.column.moves": "moves",
    "cli.column.saved": "idle power saved",
    "cli.status.pool": "{leased} % of the cards, target {target} %; {empty} of {nodes} nodes empty",
    "cli.status.moves": "{on_the_way} on their way, {done} done in 24 h",
    "cli.status.saved": "{watts} W, by nodes that moves have emptied",
}
