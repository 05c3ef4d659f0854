#include "train/split.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/mem.h"
#include "core/base/rng.h"

#define DAY 86400

// Streams of random numbers, one a purpose: drawing more of one kind leaves the others as they were.
enum { STREAM_RANDOM = 0x5eed0001, STREAM_VALID, STREAM_HELD_USERS, STREAM_HELD_ITEMS };

static const char *const how_names[] = {"auto", "given", "last", "day", "random"};

bool split_parse(const char *name, enum split_how *out)
{
    for (int i = SPLIT_AUTO; i <= SPLIT_RANDOM; i++)
        if (strcmp(name, how_names[i]) == 0) {
            *out = (enum split_how)i;
            return true;
        }
    return false;
}

const char *split_name(enum split_how how)
{
    return how_names[how];
}

void log_free(struct log *l)
{
    if (!l)
        return;
    free(l->e);
    free(l->off);
    free(l->user_held);
    free(l->item_held);
    free(l);
}

uint64_t log_count(const struct log *l, enum raw_split split)
{
    uint64_t n = 0;
    for (uint64_t i = 0; i < l->off[l->n_users]; i++)
        n += l->e[i].split == split;
    return n;
}

// --------------------------------------------------------------------------------------------------------- choosing

static bool is_positive(const struct raw_event *e, const struct log_params *p)
{
    return !p->has_min_value || (double)e->value >= p->min_value; // a missing value, NAN, is none
}

/* What the rows that count allow: times on all of them, test rows among them. */
static bool choose(struct log *l, const struct raw *raw, const struct log_params *p, struct err *err)
{
    uint64_t n = 0, timed = 0, test = 0;
    for (size_t i = 0; i < raw->n; i++)
        if (is_positive(&raw->event[i], p)) {
            n++;
            timed += raw->event[i].time != RAW_NO_TIME;
            test += raw->event[i].split == RAW_TEST;
        }
    if (n == 0)
        return err_set(err, ERR_ARG, raw->n ? "no interaction has a value of at least %g" : "no interactions",
                       p->min_value);
    l->has_time = timed == n;
    l->how = p->how != SPLIT_AUTO ? p->how : test > 0 ? SPLIT_GIVEN : l->has_time ? SPLIT_LAST : SPLIT_RANDOM;
    if (l->how == SPLIT_GIVEN && test == 0)
        return err_set(err, ERR_ARG,
                       "--split given: the source has no test rows; want a column split with train, valid and test");
    if ((l->how == SPLIT_LAST || l->how == SPLIT_DAY) && !l->has_time)
        return err_set(err, ERR_ARG, "--split %s: %llu of %llu interactions have no time; want random or given",
                       split_name(l->how), (unsigned long long)(n - timed), (unsigned long long)n);
    return true;
}

// --------------------------------------------------------------------------------------------------------- ordering

static int compare(uint64_t a, uint64_t b)
{
    return a < b ? -1 : a > b;
}

/* Logs have many equal times (a page of ratings sent at once: the last two rows of 415 of the 943 users of ml-100k),
 * and the order of lines in published logs is arbitrary; so equal times go by the item's place in the catalogue. */
static int by_time(const void *pa, const void *pb)
{
    const struct raw_event *a = pa, *b = pb;
    if (a->time != b->time)
        return a->time < b->time ? -1 : 1;
    if (a->item != b->item)
        return compare(a->item, b->item);
    return compare(a->order, b->order);
}

static int by_order(const void *pa, const void *pb)
{
    const struct raw_event *a = pa, *b = pb;
    return compare(a->order, b->order);
}

/* Rows of a pair next to each other, the one to keep last: in a given split the test row (a training row of the same
 * pair would tell the answer), else the validation row; then the last by time, then by place. */
static int by_item(const void *pa, const void *pb)
{
    const struct raw_event *a = pa, *b = pb;
    if (a->item != b->item)
        return compare(a->item, b->item);
    if (a->split != b->split)
        return compare(a->split, b->split);
    return by_time(pa, pb);
}

/* Counting sort of the positives by user. */
static bool group(struct log *l, const struct raw *raw, const struct log_params *p, struct err *err)
{
    uint64_t *at = mem_array((size_t)l->n_users + 1, sizeof(*at), err);
    l->off = mem_array((size_t)l->n_users + 1, sizeof(*l->off), err);
    l->e = mem_array(raw->n, sizeof(*l->e), err);
    bool ok = at && l->off && l->e;
    for (size_t i = 0; ok && i < raw->n; i++)
        if (is_positive(&raw->event[i], p))
            l->off[raw->event[i].user + 1]++;
    for (uint32_t u = 0; ok && u < l->n_users; u++) {
        l->off[u + 1] += l->off[u];
        at[u + 1] = l->off[u + 1];
    }
    for (size_t i = 0; ok && i < raw->n; i++) {
        struct raw_event e = raw->event[i];
        if (!is_positive(&e, p))
            continue;
        if (l->how != SPLIT_GIVEN)
            e.split = RAW_TRAIN;
        l->e[at[e.user]++] = e;
    }
    if (ok)
        l->n_low = raw->n - l->off[l->n_users];
    free(at);
    return ok;
}

/* Each user's rows: one a pair, in order. */
static void tidy(struct log *l)
{
    uint64_t to = 0, from = 0;
    for (uint32_t u = 0; u < l->n_users; u++) {
        uint64_t end = l->off[u + 1], begin = to;
        qsort(l->e + from, (size_t)(end - from), sizeof(*l->e), by_item);
        for (uint64_t i = from; i < end; i++)
            if (i + 1 == end || l->e[i + 1].item != l->e[i].item)
                l->e[to++] = l->e[i];
        l->n_repeated += (end - from) - (to - begin);
        qsort(l->e + begin, (size_t)(to - begin), sizeof(*l->e), l->has_time ? by_time : by_order);
        l->off[u] = begin;
        from = end;
    }
    l->off[l->n_users] = to;
}

// ----------------------------------------------------------------------------------------------------------- k-core

/* One round: leave out rows whose user or item has too few. Dropping one can bring others below, so rounds repeat until
 * none drops anything; what is left is the k-core, whichever order rows are dropped in. */
static uint64_t thin_once(struct log *l, const uint32_t *user_n, const uint32_t *item_n, const struct log_params *p)
{
    uint64_t to = 0, from = 0;
    for (uint32_t u = 0; u < l->n_users; u++) {
        uint64_t end = l->off[u + 1];
        l->off[u] = to;
        for (; from < end; from++)
            if (user_n[u] >= p->k_core_user && item_n[l->e[from].item] >= p->k_core_item)
                l->e[to++] = l->e[from];
    }
    uint64_t dropped = l->off[l->n_users] - to;
    l->off[l->n_users] = to;
    return dropped;
}

static bool k_core(struct log *l, const struct log_params *p, struct err *err)
{
    if (p->k_core_user <= 1 && p->k_core_item <= 1)
        return true;
    uint32_t *user_n = mem_array(l->n_users, sizeof(*user_n), err),
             *item_n = mem_array(l->n_items, sizeof(*item_n), err);
    bool ok = user_n && item_n;
    for (uint64_t dropped = 1; ok && dropped > 0; l->n_thin += dropped) {
        memset(item_n, 0, (size_t)l->n_items * sizeof(*item_n));
        for (uint32_t u = 0; u < l->n_users; u++)
            user_n[u] = (uint32_t)(l->off[u + 1] - l->off[u]);
        for (uint64_t i = 0; i < l->off[l->n_users]; i++)
            item_n[l->e[i].item]++;
        dropped = thin_once(l, user_n, item_n, p);
    }
    free(user_n);
    free(item_n);
    return ok && (l->off[l->n_users] > 0 ||
                  err_set(err, ERR_ARG, "the k-core leaves no interaction; want a smaller --k-core"));
}

// ----------------------------------------------------------------------------------------------------------- splits

static void split_last(struct log *l)
{
    for (uint32_t u = 0; u < l->n_users; u++) {
        uint64_t end = l->off[u + 1];
        if (end - l->off[u] < 3)
            continue;
        l->e[end - 1].split = RAW_TEST;
        l->e[end - 2].split = RAW_VALID;
    }
}

static void split_random(struct log *l, uint64_t seed)
{
    struct rng rng;
    rng_init(&rng, seed ^ STREAM_RANDOM);
    for (uint32_t u = 0; u < l->n_users; u++) {
        uint32_t n = (uint32_t)(l->off[u + 1] - l->off[u]);
        if (n < 3)
            continue;
        uint32_t test = rng_below(&rng, n), valid = rng_below(&rng, n - 1);
        l->e[l->off[u] + test].split = RAW_TEST;
        l->e[l->off[u] + valid + (valid >= test)].split = RAW_VALID;
    }
}

static int64_t day_of(int64_t time)
{
    return time >= 0 ? time / DAY : -((-time + DAY - 1) / DAY);
}

static void split_day(struct log *l, uint32_t days)
{
    int64_t last = INT64_MIN;
    for (uint64_t i = 0; i < l->off[l->n_users]; i++)
        if (day_of(l->e[i].time) > last)
            last = day_of(l->e[i].time);
    for (uint64_t i = 0; i < l->off[l->n_users]; i++) {
        int64_t age = last - day_of(l->e[i].time);
        l->e[i].split = age < (int64_t)days ? RAW_TEST : age < 2 * (int64_t)days ? RAW_VALID : RAW_TRAIN;
    }
}

/* A given split without validation rows: one training row of each user that has two or more. */
static void make_valid(struct log *l, uint64_t seed)
{
    struct rng rng;
    rng_init(&rng, seed ^ STREAM_VALID);
    for (uint32_t u = 0; u < l->n_users; u++) {
        uint32_t n = 0;
        for (uint64_t i = l->off[u]; i < l->off[u + 1]; i++)
            n += l->e[i].split == RAW_TRAIN;
        if (n < 2)
            continue;
        uint32_t pick = rng_below(&rng, n);
        for (uint64_t i = l->off[u]; i < l->off[u + 1]; i++)
            if (l->e[i].split == RAW_TRAIN && pick-- == 0)
                l->e[i].split = RAW_VALID;
    }
}

static void assign(struct log *l, const struct log_params *p)
{
    switch (l->how) {
    case SPLIT_GIVEN:
        if (log_count(l, RAW_VALID) == 0)
            make_valid(l, p->seed);
        break;
    case SPLIT_DAY:
        split_day(l, p->days ? p->days : 1);
        break;
    case SPLIT_RANDOM:
        split_random(l, p->seed);
        break;
    case SPLIT_AUTO:
    case SPLIT_LAST:
        split_last(l);
        break;
    }
}

// --------------------------------------------------------------------------------------------------------- hold-out

/* floor(share n) of the n marked entities, at random: a partial Fisher-Yates shuffle. Marks become 1 for those. */
static bool draw(uint8_t *mark, uint32_t n, double share, uint64_t seed, struct err *err)
{
    uint32_t *left = mem_array(n, sizeof(*left), err), n_left = 0;
    if (!left)
        return false;
    for (uint32_t i = 0; i < n; i++)
        if (mark[i])
            left[n_left++] = i;
    memset(mark, 0, n);
    struct rng rng;
    rng_init(&rng, seed);
    for (uint32_t want = (uint32_t)floor(share * n_left); want > 0; want--) {
        uint32_t pick = rng_below(&rng, n_left);
        mark[left[pick]] = 1;
        left[pick] = left[--n_left];
    }
    free(left);
    return true;
}

static bool hold_out(struct log *l, const struct log_params *p, struct err *err)
{
    l->user_held = mem_array(l->n_users, 1, err);
    l->item_held = mem_array(l->n_items, 1, err);
    if (!l->user_held || !l->item_held)
        return false;
    if (p->hold_out <= 0)
        return true;
    for (uint32_t u = 0; u < l->n_users; u++)
        for (uint64_t i = l->off[u]; i < l->off[u + 1]; i++)
            l->user_held[u] = l->item_held[l->e[i].item] = 1;
    if (!draw(l->user_held, l->n_users, p->hold_out, p->seed ^ STREAM_HELD_USERS, err) ||
        !draw(l->item_held, l->n_items, p->hold_out, p->seed ^ STREAM_HELD_ITEMS, err))
        return false;
    for (uint64_t i = 0; i < l->off[l->n_users]; i++) {
        struct raw_event *e = &l->e[i];
        if (e->split != RAW_TEST && (l->user_held[e->user] || l->item_held[e->item]))
            e->split = RAW_HELD;
    }
    return true;
}

struct log *log_new(const struct raw *raw, const struct log_params *p, struct err *err)
{
    struct log *l = mem_array(1, sizeof(*l), err);
    if (!l)
        return NULL;
    l->n_users = raw->user.ids.n;
    l->n_items = raw->item.ids.n;
    if (!choose(l, raw, p, err) || !group(l, raw, p, err))
        goto fail;
    tidy(l);
    if (!k_core(l, p, err))
        goto fail;
    assign(l, p);
    if (!hold_out(l, p, err))
        goto fail;
    if (log_count(l, RAW_TRAIN) > 0)
        return l;
    err_set(err, ERR_ARG, "no training interactions are left by --split %s and --hold-out %g", split_name(l->how),
            p->hold_out);
fail:
    log_free(l);
    return NULL;
}
