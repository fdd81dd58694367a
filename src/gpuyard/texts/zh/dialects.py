"""云接口方言与访问密钥的文字。"""

TEXTS: dict[str, str] = {
    "error.access_key_not_found": "没有生效中的访问密钥“{key}”：见 `gpuyard keys list`。",
    "error.key_pair_not_found": "没有密钥对“{name}”：请看方言接口 DescribeKeyPairs 的列表。",
    "error.invalid_public_key": "这不是公钥：请给出 OpenSSH .pub 文件中的一行（ed25519、RSA 或 ECDSA）。",
    "error.no_capacity": "规格 {offer} 现在只能给出 {free} 个，而至少要 {wanted} 个：请减少数量或稍后再试。",
    "cli.keys.help": "列出、创建和吊销访问密钥，供 EC2 与 ECS 的 SDK 使用。",
    "cli.keys.list": "列出访问密钥；其密文已封存。",
    "cli.keys.create": "为用户创建访问密钥。",
    "cli.keys.revoke": "使访问密钥失效。",
    "cli.keys.id": "访问密钥的编号。",
    "cli.keys.once": "密文只显示这一次。让 SDK 指向 {url}，并使用：",
    "cli.keys.gone": "访问密钥 {id} 已失效。",
    "cli.column.access_key": "密钥",
    "cli.column.last_used": "上次使用",
}
