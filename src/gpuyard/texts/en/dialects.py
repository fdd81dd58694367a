"""What the cloud dialects and access keys say."""

TEXTS: dict[str, str] = {
    "error.access_key_not_found": "There is no access key '{key}' in force: see `gpuyard keys list`.",
    "error.key_pair_not_found": "There is no key pair '{name}': see what the dialect's DescribeKeyPairs lists.",
    "error.invalid_public_key": "This is not a public key: give one line of an OpenSSH .pub file (ed25519, RSA or ECDSA).",
    "error.no_capacity": "Only {free} of {offer} could be granted now, and at least {wanted} were asked for: ask for fewer or try later.",
    "cli.keys.help": "List, create and revoke access keys, for SDKs of EC2 and ECS.",
    "cli.keys.list": "List access keys; their secrets lie sealed.",
    "cli.keys.create": "Create an access key for a user.",
    "cli.keys.revoke": "Make an access key worthless.",
    "cli.keys.id": "The access key's id.",
    "cli.keys.once": "The secret is shown this once. Point an SDK at {url} with:",
    "cli.keys.gone": "The access key {id} is worthless now.",
    "cli.column.access_key": "access key",
    "cli.column.last_used": "last used",
}
