/* JSON as training writes it: numbers come back exactly. */
#ifndef TRAIN_JSON_H
#define TRAIN_JSON_H

#include "format/json.h"

/* A value over several lines, objects' keys in their own order, numbers in the fewest digits that
 * give them back; arrays of plain values stay on one line. Ends with a newline; base_free. NULL
 * when out of memory or where a number is not finite. */
char *train_json_text(const json_t *value);

/* An array of numbers; NULL when out of memory. */
json_t *train_json_floats(const float *values, int64_t n);
/* False where `json` is no array of n finite numbers. */
bool train_json_to_floats(const json_t *json, float *values, int64_t n);

#endif
