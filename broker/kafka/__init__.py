"""Kafka behind ``broker.ports``: aiokafka for records, confluent-kafka for administration."""
