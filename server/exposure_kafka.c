#include "server/exposure_kafka.h"

#include <stdint.h>
#include <string.h>

static bool check_form(const struct exposure_kafka_params *p, struct err *err)
{
    if (p->brokers[0] && !p->topic[0])
        return err_set(err, ERR_ARG, "exposure.kafka_brokers is set and exposure.kafka_topic is not: set both");
    return true;
}

#ifndef DUET_KAFKA

bool exposure_kafka_check(const struct exposure_kafka_params *p, struct err *err)
{
    if (!check_form(p, err))
        return false;
    return !p->brokers[0] ||
           err_set(err, ERR_ARG,
                   "exposure.kafka_brokers: this duetd was built without librdkafka; unset it, or build again where "
                   "librdkafka-dev is installed");
}

struct exposure_kafka *exposure_kafka_new(const struct exposure_kafka_params *p, struct metrics *m, struct log *log,
                                          struct err *err)
{
    (void)m;
    (void)log;
    exposure_kafka_check(p, err);
    return NULL;
}

void exposure_kafka_put(struct exposure_kafka *k, const char *lines, size_t n)
{
    (void)k;
    (void)lines;
    (void)n;
}

void exposure_kafka_poll(struct exposure_kafka *k)
{
    (void)k;
}

void exposure_kafka_free(struct exposure_kafka *k)
{
    (void)k;
}

#else

#include <librdkafka/rdkafka.h>
#include <stdlib.h>

#include "core/base/fio.h"
#include "core/base/mem.h"

#define FLUSH_MS 5000
#define CONFIG_MAX (64u << 10)
#define KEY_BYTES 16 // of unit_hash

struct exposure_kafka {
    rd_kafka_t *rk;
    rd_kafka_topic_t *topic;
    struct metrics *metrics;
    struct log *log;
    metric_id written, lost;
    rd_kafka_resp_err_t told; // the last error in the log, until a message was delivered
};

// ------------------------------------------------------------------------------------------------------- callbacks

static void tell(struct exposure_kafka *k, rd_kafka_resp_err_t code, const char *detail)
{
    if (code == k->told)
        return;
    k->told = code;
    log_event(k->log, LOG_WARN, "exposure_kafka_failed", LOG_STR("error", rd_kafka_err2name(code)),
              LOG_STR("detail", detail));
}

static void delivered(rd_kafka_t *rk, const rd_kafka_message_t *m, void *opaque)
{
    struct exposure_kafka *k = opaque;
    (void)rk;
    metrics_add(k->metrics, 0, m->err ? k->lost : k->written, 1);
    if (m->err)
        tell(k, m->err, rd_kafka_err2str(m->err));
    else
        k->told = RD_KAFKA_RESP_ERR_NO_ERROR;
}

static void on_error(rd_kafka_t *rk, int code, const char *reason, void *opaque)
{
    (void)rk;
    tell(opaque, (rd_kafka_resp_err_t)code, reason);
}

// ------------------------------------------------------------------------------------------------------- settings

static bool set(rd_kafka_conf_t *conf, const char *key, const char *value, struct err *err)
{
    char why[256];
    return rd_kafka_conf_set(conf, key, value, why, sizeof(why)) == RD_KAFKA_CONF_OK || err_set(err, ERR_ARG, "%s", why);
}

static bool set_line(rd_kafka_conf_t *conf, char *line, struct err *err)
{
    line += strspn(line, " \t");
    line[strcspn(line, "\r\n")] = '\0';
    char *eq = strchr(line, '=');
    if (line[0] == '\0' || line[0] == '#')
        return true;
    if (!eq)
        return err_set(err, ERR_ARG, "found \"%.40s\", want key=value", line);
    *eq = '\0';
    return set(conf, line, eq + 1, err);
}

static bool set_from_file(rd_kafka_conf_t *conf, const char *path, struct err *err)
{
    size_t n;
    char *text = fio_read_all(path, CONFIG_MAX, &n, err), *next = text;
    bool ok = text != NULL;
    for (int number = 1; ok && next && *next; number++) {
        char *line = next, *end = strchr(next, '\n');
        next = end ? end + 1 : NULL;
        if (end)
            *end = '\0';
        ok = set_line(conf, line, err) || err_prefix(err, "%s:%d", path, number);
    }
    free(text);
    return ok;
}

static bool configure(rd_kafka_conf_t *conf, const struct exposure_kafka_params *p, struct err *err)
{
    if (!set(conf, "client.id", "duetd", err) || !set(conf, "enable.idempotence", "true", err) ||
        !set(conf, "linger.ms", "50", err) || !set(conf, "queue.buffering.max.kbytes", "65536", err))
        return false;
    if (p->config[0] && !set_from_file(conf, p->config, err))
        return err_prefix(err, "exposure.kafka_config");
    return set(conf, "bootstrap.servers", p->brokers, err) || err_prefix(err, "exposure.kafka_brokers");
}

bool exposure_kafka_check(const struct exposure_kafka_params *p, struct err *err)
{
    if (!check_form(p, err))
        return false;
    if (!p->brokers[0])
        return true;
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    bool ok = configure(conf, p, err);
    rd_kafka_conf_destroy(conf);
    return ok;
}

// ------------------------------------------------------------------------------------------------------- life

static bool connect_to(struct exposure_kafka *k, const struct exposure_kafka_params *p, struct err *err)
{
    char why[256];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_conf_set_opaque(conf, k);
    rd_kafka_conf_set_dr_msg_cb(conf, delivered);
    rd_kafka_conf_set_error_cb(conf, on_error);
    rd_kafka_conf_set_log_cb(conf, NULL); // it would write to standard error; errors come through the callbacks
    if (!configure(conf, p, err)) {
        rd_kafka_conf_destroy(conf);
        return false;
    }
    k->rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, why, sizeof(why)); // takes conf where it succeeds
    if (!k->rk) {
        rd_kafka_conf_destroy(conf);
        return err_set(err, ERR_ARG, "exposure.kafka_config: %s", why);
    }
    k->topic = rd_kafka_topic_new(k->rk, p->topic, NULL);
    return k->topic || err_set(err, ERR_ARG, "exposure.kafka_topic \"%.80s\": %s", p->topic,
                               rd_kafka_err2str(rd_kafka_last_error()));
}

struct exposure_kafka *exposure_kafka_new(const struct exposure_kafka_params *p, struct metrics *m, struct log *log,
                                          struct err *err)
{
    struct exposure_kafka *k = mem_array(1, sizeof(*k), err);
    if (!k)
        return NULL;
    k->metrics = m;
    k->log = log;
    k->written = metrics_counter(m, "duet_exposure_lines_total", "Lines of the exposure log that were written.",
                                 "sink=\"kafka\"");
    k->lost = metrics_counter(m, "duet_exposure_dropped_total", "Lines of the exposure log that were lost, by reason.",
                              "reason=\"kafka\"");
    if (connect_to(k, p, err))
        return k;
    exposure_kafka_free(k);
    return NULL;
}

void exposure_kafka_free(struct exposure_kafka *k)
{
    if (!k)
        return;
    if (k->rk) {
        rd_kafka_flush(k->rk, FLUSH_MS);
        rd_kafka_purge(k->rk, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT); // the rest comes back as undelivered
        rd_kafka_poll(k->rk, 0);
        if (k->topic)
            rd_kafka_topic_destroy(k->topic);
        rd_kafka_destroy(k->rk);
    }
    free(k);
}

// ------------------------------------------------------------------------------------------------------- lines

static void put_line(struct exposure_kafka *k, const char *line, size_t n)
{
    static const char member[] = "\"unit_hash\":\""; // what stands before it cannot hold a quote
    const char *key = memmem(line, n, member, sizeof(member) - 1);
    if (key)
        key += sizeof(member) - 1;
    if (rd_kafka_produce(k->topic, RD_KAFKA_PARTITION_UA, RD_KAFKA_MSG_F_COPY, (void *)(uintptr_t)line, n, key,
                         key ? KEY_BYTES : 0, NULL) == 0)
        return;
    metrics_add(k->metrics, 0, k->lost, 1);
    tell(k, rd_kafka_last_error(), rd_kafka_err2str(rd_kafka_last_error()));
}

void exposure_kafka_put(struct exposure_kafka *k, const char *lines, size_t n)
{
    for (const char *line = lines, *end; line < lines + n; line = end + 1) {
        end = memchr(line, '\n', (size_t)(lines + n - line));
        put_line(k, line, (size_t)(end - line));
    }
}

void exposure_kafka_poll(struct exposure_kafka *k)
{
    if (k)
        rd_kafka_poll(k->rk, 0);
}

#endif
