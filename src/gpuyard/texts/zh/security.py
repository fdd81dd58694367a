"""What TLS, rate limits, logins and fetches say."""

TEXTS: dict[str, str] = {
    "error.tls_unusable": "TLS 无法使用 {path}：{reason}。",
    "error.yard_not_trusted": "{url} 出示的证书不受信任（{reason}）：请用管理员告知的 --ca-sha256，或用 --ca 文件，重新登录。",
    "cli.up.tls": "启用 TLS，证书由本集群自有的 CA 签发并自动续期。",
    "cli.up.tls_cert": "用此证书链（PEM）启用 TLS；文件变化后自动重新读取。",
    "cli.up.tls_key": "--tls-cert 的私钥（PEM，未加密）。",
    "cli.up.tls_name": "自有证书的其他主机名或地址；可重复。",
    "cli.up.plain_http": "不启用 TLS 就监听其他机器可达的地址，因为前面已有 TLS 代理。",
    "cli.up.ca": "其 CA 的 SHA-256，供客户端锁定：{sha256}",
    "cli.login.ca": "只信任此 CA（PEM 文件），并记住它。",
    "cli.login.ca_sha256": "获取该集群自有的 CA，仅当其 SHA-256 与此相同时才信任，并记住它。",
}
