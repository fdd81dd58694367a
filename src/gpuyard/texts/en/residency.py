"""Where data may lie."""

TEXTS: dict[str, str] = {
    "error.outside_residency": "{data} (residency class {residency_class}) may not be used in the region {region}: {why}.",
    "word.why.other_class": "that region is of another class; choose cards that are in regions of its class alone",
    "word.why.region_unclassed": "that region is of no class; an operator adds it with `gpuyard geography residency`",
    "word.reason.region_twice": "the region {region} is in another class",
    "cli.geography.residency": "Set the regions of a residency class, among which data may go; without regions it is taken away; without a name show where data lie.",
    "cli.geography.region": "A region, as nodes name it; may be repeated.",
    "cli.up.region": "The region that this machine stands in: data that is written here stays in its residency class.",
}
