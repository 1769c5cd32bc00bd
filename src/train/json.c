#include "train/json.h"

#include <math.h>
#include <string.h>

static bool is_flat(const json_t *array)
{
    for (size_t i = 0; i < json_array_size(array); i++) {
        const json_t *item = json_array_get(array, i);
        if (json_is_object(item) || json_is_array(item))
            return false;
    }
    return true;
}

static void new_line(base_text *out, int depth)
{
    base_text_add_char(out, '\n');
    for (int i = 0; i < depth; i++)
        base_text_add(out, "  ");
}

static void add_value(base_text *out, const json_t *value, int depth);

static void add_object(base_text *out, const json_t *object, int depth)
{
    const char *key;
    json_t *value;
    const char *between = "";
    base_text_add_char(out, '{');
    json_object_foreach((json_t *)object, key, value)
    {
        base_text_add(out, between);
        new_line(out, depth + 1);
        format_json_escape(out, key, strlen(key));
        base_text_add(out, ": ");
        add_value(out, value, depth + 1);
        between = ",";
    }
    if (*between)
        new_line(out, depth);
    base_text_add_char(out, '}');
}

static void add_array(base_text *out, const json_t *array, int depth)
{
    bool flat = is_flat(array);
    base_text_add_char(out, '[');
    for (size_t i = 0; i < json_array_size(array); i++) {
        base_text_add(out, i == 0 ? "" : flat ? ", " : ",");
        if (!flat)
            new_line(out, depth + 1);
        add_value(out, json_array_get(array, i), depth + 1);
    }
    if (!flat)
        new_line(out, depth);
    base_text_add_char(out, ']');
}

static void add_value(base_text *out, const json_t *value, int depth)
{
    char number[32];
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        add_object(out, value, depth);
        break;
    case JSON_ARRAY:
        add_array(out, value, depth);
        break;
    case JSON_REAL:
        if (!isfinite(json_real_value(value)))
            out->failed = true;
        base_shortest(json_real_value(value), number);
        base_text_add(out, number);
        if (!strpbrk(number, ".e")) /* still a real, and -0 still negative, when it is read */
            base_text_add(out, ".0");
        break;
    default:
        format_json_plain(out, value);
        break;
    }
}

char *train_json_text(const json_t *value)
{
    base_text out = {0};
    add_value(&out, value, 0);
    base_text_add_char(&out, '\n');
    return base_text_take(&out, NULL);
}

json_t *train_json_floats(const float *values, int64_t n)
{
    json_t *array = json_array();
    for (int64_t i = 0; array && i < n; i++) {
        if (json_array_append_new(array, json_real((double)values[i])) != 0) {
            json_decref(array);
            array = NULL;
        }
    }
    return array;
}

bool train_json_to_floats(const json_t *json, float *values, int64_t n)
{
    if (!json_is_array(json) || json_array_size(json) != (size_t)n)
        return false;
    for (int64_t i = 0; i < n; i++) {
        const json_t *item = json_array_get(json, (size_t)i);
        if (!json_is_number(item) || !isfinite((float)json_number_value(item)))
            return false;
        values[i] = (float)json_number_value(item);
    }
    return true;
}
