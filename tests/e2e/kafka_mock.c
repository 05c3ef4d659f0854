/* kafka_mock - librdkafka's mock cluster as a program, for experiments.py: prints its bootstrap servers; then, for each line "N" on standard
 * input, the next N messages of the topic "exposures" as "partition key payload" lines; "down" and "up" take the broker away and bring it
 * back. Ends at the end of its input. */
#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TOPIC "exposures"
#define PARTITIONS 3

static rd_kafka_t *client(rd_kafka_type_t type, const char *bootstraps)
{
    char why[256];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    if (bootstraps)
        rd_kafka_conf_set(conf, "bootstrap.servers", bootstraps, why, sizeof(why));
    rd_kafka_conf_set(conf, "group.id", "test", why, sizeof(why));
    rd_kafka_conf_set(conf, "log_level", "0", why, sizeof(why));
    rd_kafka_t *rk = rd_kafka_new(type, conf, why, sizeof(why));
    if (!rk) {
        fprintf(stderr, "%s\n", why);
        exit(1);
    }
    return rk;
}

static void assign_all(rd_kafka_t *consumer)
{
    rd_kafka_topic_partition_list_t *all = rd_kafka_topic_partition_list_new(PARTITIONS);
    for (int i = 0; i < PARTITIONS; i++)
        rd_kafka_topic_partition_list_add(all, TOPIC, i)->offset = RD_KAFKA_OFFSET_BEGINNING;
    rd_kafka_assign(consumer, all);
    rd_kafka_topic_partition_list_destroy(all);
}

static void print_messages(rd_kafka_t *consumer, int n)
{
    while (n > 0) {
        rd_kafka_message_t *m = rd_kafka_consumer_poll(consumer, 1000);
        if (m && !m->err) {
            printf("%d %.*s %.*s\n", (int)m->partition, m->key ? (int)m->key_len : 1, m->key ? (const char *)m->key : "-",
                   (int)m->len, (const char *)m->payload);
            n--;
        }
        if (m)
            rd_kafka_message_destroy(m);
    }
    fflush(stdout);
}

int main(void)
{
    char line[32];
    rd_kafka_t *host = client(RD_KAFKA_PRODUCER, NULL);
    rd_kafka_mock_cluster_t *cluster = rd_kafka_mock_cluster_new(host, 1);
    rd_kafka_mock_topic_create(cluster, TOPIC, PARTITIONS, 1);
    rd_kafka_t *consumer = client(RD_KAFKA_CONSUMER, rd_kafka_mock_cluster_bootstraps(cluster));
    assign_all(consumer);
    printf("%s\n", rd_kafka_mock_cluster_bootstraps(cluster));
    fflush(stdout);
    while (fgets(line, sizeof(line), stdin)) {
        if (strcmp(line, "down\n") == 0)
            rd_kafka_mock_broker_set_down(cluster, 1);
        else if (strcmp(line, "up\n") == 0)
            rd_kafka_mock_broker_set_up(cluster, 1);
        else
            print_messages(consumer, atoi(line));
    }
    _exit(0); // taking a cluster down whose broker is down would wait for minutes
}
