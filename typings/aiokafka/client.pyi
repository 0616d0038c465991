from asyncio import Future

class ClusterMetadata:
    unauthorized_topics: set[str]
    def partitions_for_topic(self, topic: str) -> set[int] | None: ...

class AIOKafkaClient:
    cluster: ClusterMetadata
    def add_topic(self, topic: str) -> Future[bool]: ...
    async def close(self) -> None: ...
