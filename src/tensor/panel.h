/* Panels: eight rows of a block format with their bytes interleaved, so that a kernel finds the
 * same place of all eight rows side by side, a lane a row. A panel takes exactly the bytes of its
 * rows, so a matrix can be repacked where it lies.
 *
 * Block after block, the eight rows' blocks are cut into units of four bytes, and the units of
 * equal place stand together: unit 0 of rows 0 .. 7, unit 1 of rows 0 .. 7, ... Where a block holds
 * a lone F16 scale (two bytes at its beginning or its end), the eight scales stand together there.
 */
#ifndef TENSOR_PANEL_H
#define TENSOR_PANEL_H

#include "tensor/tensor.h"

enum { TENSOR_PANEL_ROWS = 8 };

/* Does the type have panels? The block formats that kernels take in this form do. */
bool tensor_has_panels(tensor_type type);

/* rows: eight rows of `cols` elements, one after another; panel: as many bytes, not overlapping. */
void tensor_panel_pack(tensor_type type, const void *rows, void *panel, int64_t cols);

/* Row r (0 .. 7) of a panel, as it was before packing. */
void tensor_panel_row(tensor_type type, const void *panel, int r, void *row, int64_t cols);

#endif
