TEXTS: dict[str, str] = {
    "error.mps_one_card": "A program can use one card under MPS, and this one asks for shares of {count} ({model}): ask for one share, for whole cards, or start the yard without --mps.",
    "error.mps_unavailable": "MPS does not hold the card {card} now: {reason}.",
    "doctor.mps.ok": "NVIDIA's Multi-Process Service (MPS) holds slices of {cards} cards to their multiprocessors, and lets nobody else on those cards while it does{detail}.",
    "doctor.mps.missing": "MPS was asked for and is not claimed for any card: {detail}.",
    "doctor.mps.unknown": "NVIDIA's Multi-Process Service (MPS) is not used: {detail}. With `gpuyard up --mps` it would hold slices to their multiprocessors; a fatal fault of one program would then end all programs on its card.",
    "guarantee.mps_held": "NVIDIA's Multi-Process Service holds the slice's programs to their multiprocessors, and a library in the workload to its memory; both were tried on this card.",
    "guarantee.mps_emulated": "The card is emulated: a library in the workload keeps it to its memory, and an emulated Multi-Process Service to its multiprocessors.",
    "guarantee.mps_bypass": "A program that means to can go around that library or command the MPS daemon: each of its processes can then have as much as the largest slice on the card, or more.",
    "guarantee.mps_faults": "A fatal fault of one program ends all programs on the card that run under MPS.",
    "guarantee.mps_shared_memory": "Containers under MPS share the machine's /dev/shm, as its server does.",
    "cli.up.mps": "Have NVIDIA's Multi-Process Service hold slices to their multiprocessors, where that is seen to work; it needs root.",
    "cli.doctor.mps": "Try too whether NVIDIA's Multi-Process Service holds slices; it needs root, and cards that nobody uses.",
}
