/* metrics_text.h - is this Prometheus text format 0.0.4, and does it follow the rules that `promtool check metrics` looks at?
 * Every sample belongs to the family announced last, counters end in _total, no series stands twice, buckets never fall and end in
 * +Inf, values are numbers. */
#ifndef DUET_TESTS_SERVER_METRICS_TEXT_H
#define DUET_TESTS_SERVER_METRICS_TEXT_H

#include <stdbool.h>
#include <stddef.h>

bool metrics_text_is_valid(const char *text, char *message, size_t cap);

#endif
