"""The ECS dialect: Alibaba Cloud RPC, in JSON and XML."""
