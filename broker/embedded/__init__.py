"""A real Apache Kafka from jars, one node with everything that a cluster has, for a laptop, a test and a demo."""
