"""MIG: cards that the hardware cuts."""

TEXTS: dict[str, str] = {
    "error.mig_one_slice": "A program computes in one MIG instance, and this asks for {count} slices of {model}, whose cards are in MIG mode: ask for one slice, or for another model.",
    "error.mig_too_large": "No MIG instance of {model} is so large: the largest is {largest} with {memory} (offer {offer}). A whole card is leased where its MIG mode is off.",
    "error.mig_not_there": "{model} has no MIG mode: leave out `:mig`, or choose a card such as H100 or A100.",
    "error.mig_place_taken": "The place {place} of card {card} is taken by another MIG instance ({reason}); the start is tried again.",
    "error.mig_unavailable": "The MIG instance {place} of card {card} cannot be made now: {reason}.",
    "error.mig_no_containers": "{model} is in MIG mode, and only processes get MIG instances here: leave out the image, or ask for another model.",
    "reason.mig_no_place": "{node}: no place for a MIG instance {profile} is left on its cards in MIG mode ({count})",
    "reason.mig_too_large": "{node}: its cards are in MIG mode, and their largest instance is {largest} with {memory}",
    "reason.mig_one_slice": "{node}: its cards are in MIG mode, where a program gets one slice and not {count}",
    "reason.mig_no_containers": "{node}: its cards are in MIG mode, and containers get no MIG instances",
    "why.scheduler.mig": "It has a MIG instance of the card: the smallest that has what it asked for, where it leaves most room to others.",
    "doctor.mig.ok": "MIG instances hold slices on {cards} cards: a program was tried in one of each{detail}.",
    "doctor.mig.missing": "Nothing is leased of the cards in MIG mode: {detail}.",
    "doctor.mig_mode.ok": "{model} {card} is in MIG mode: its slices are instances of {profiles}; {instances} are there. `nvidia-smi -i {card} -mig 0` turns that off, to lease it whole.",
    "doctor.mig_simulated.ok": "{model} in MIG mode: its slices are instances of {profiles}.",
    "guarantee.mig_held": "The card itself keeps the instance to its memory, its multiprocessors and its part of the caches (MIG), as the driver set it up; it was tried on this card.",
    "guarantee.mig_emulated": "The card is emulated, and its driver keeps the instance to its memory and its multiprocessors, as MIG would.",
    "guarantee.mig_not_held": "The card is in MIG mode, and no instance could be made or tried on it: nothing is leased of it. A yard tries when it starts.",
    "guarantee.mig_no_containers": "The card is in MIG mode, and containers get no MIG instances.",
    "guarantee.mig_shared": "Power and the PCIe link are shared by all instances of the card, and so is the loss of the whole card.",
}
