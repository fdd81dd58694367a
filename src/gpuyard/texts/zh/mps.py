TEXTS: dict[str, str] = {
    "error.mps_one_card": "MPS 下一个程序只能用一张卡，而此请求要 {count} 张卡（{model}）的份额：请只要一份、改要整卡，或启动时不加 --mps。",
    "error.mps_unavailable": "MPS 目前无法约束卡 {card}：{reason}。",
    "doctor.mps.ok": "NVIDIA 多进程服务（MPS）把 {cards} 张卡上的切片限制在各自的多处理器内；期间其他程序不能使用这些卡{detail}。",
    "doctor.mps.missing": "已要求使用 MPS，但没有一张卡可以声明该级别：{detail}。",
    "doctor.mps.unknown": "未使用 NVIDIA 多进程服务（MPS）：{detail}。用 `gpuyard up --mps` 启动后，它会把切片限制在各自的多处理器内；但一个程序的致命错误会使该卡上的所有程序一起结束。",
    "guarantee.mps_held": "NVIDIA 多进程服务把切片中的程序限制在其多处理器内，负载中的库把它限制在其显存内；两者都在此卡上试过。",
    "guarantee.mps_emulated": "此卡是模拟的：负载中的库限制其显存，模拟的多进程服务限制其多处理器。",
    "guarantee.mps_bypass": "有意为之的程序可以绕过该库，或向 MPS 守护进程下命令：它的每个进程此时可得到与卡上最大切片一样多的资源，甚至更多。",
    "guarantee.mps_faults": "一个程序的致命错误会结束该卡上所有在 MPS 下运行的程序。",
    "guarantee.mps_shared_memory": "MPS 下的容器与 MPS 服务器共用本机的 /dev/shm。",
    "cli.up.mps": "在确认有效的卡上，由 NVIDIA 多进程服务把切片限制在各自的多处理器内；需要 root。",
    "cli.doctor.mps": "同时试验 NVIDIA 多进程服务能否约束切片；需要 root，且卡上没有其他程序。",
}
