/* The symbols of the driver API and the API versions that brought them. */
#pragma once
#include <stddef.h>

struct variant { const char *symbol; int version; };
extern const struct variant gy_variants[];
extern const size_t gy_variant_count;
