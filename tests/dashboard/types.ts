// What a dashboard is, by Grafana's own types, as JSON has it: an enum is one of its values.
import type { DataQuery, Dashboard, Panel, RowPanel } from "@grafana/schema";
import type {
  FieldConfig as TimelineField,
  Options as TimelineOptions,
} from "@grafana/schema/dist/esm/raw/composable/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen";
import type { Options as StatOptions } from "@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen";
import type {
  FieldConfig as TableField,
  Options as TableOptions,
} from "@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen";
import type {
  FieldConfig as SeriesField,
  Options as SeriesOptions,
} from "@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen";

type Json<T> = T extends string
  ? `${T}`
  : T extends number
    ? number extends T
      ? number
      : `${T}` extends `${infer Value extends number}`
        ? Value
        : never
    : T extends (infer Item)[]
      ? Json<Item>[]
      : T extends object
        ? { [Name in keyof T]: Json<T[Name]> }
        : T;

/** A query to Prometheus. Its plugin publishes no types; these are its fields. */
interface Query extends DataQuery {
  expr: string;
  instant: boolean;
  range: boolean;
  format: "time_series" | "table" | "heatmap";
  legendFormat?: string;
}

/** A panel of one kind, with the options of that kind. */
type Of<Kind extends string, Options, Field> = Omit<
  Panel<Record<string, unknown>, Partial<Field>>,
  "type" | "options" | "targets" | "title" | "description" | "gridPos"
> & {
  type: Kind;
  title: string;
  description: string;
  gridPos: NonNullable<Panel["gridPos"]>;
  options: Options;
  targets: Query[];
};

type Kinds =
  | Of<"stat", StatOptions, object>
  | Of<"table", TableOptions, TableField>
  | Of<"timeseries", SeriesOptions, SeriesField>
  | Of<"state-timeline", TimelineOptions, TimelineField>
  | RowPanel;

export type Checked = Json<Omit<Dashboard, "panels"> & { panels: Kinds[] }>;
