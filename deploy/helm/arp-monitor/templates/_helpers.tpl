{{/* The name of every object: the release's, with the chart's behind it unless it is in it. */}}
{{- define "arp-monitor.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "arp-monitor.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (include "arp-monitor.name" .) -}}
{{- end -}}

{{- define "arp-monitor.selector" -}}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/name: {{ .Chart.Name }}
{{- end -}}

{{- define "arp-monitor.labels" -}}
{{ include "arp-monitor.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "arp-monitor.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* The capabilities that the monitor keeps; docs/installation.md says what for. */}}
{{- define "arp-monitor.capabilities" -}}
- BPF
- NET_ADMIN
{{- if .Values.ask }}
- NET_RAW
{{- end }}
- PERFMON
{{- end -}}

{{- define "arp-monitor.podAnnotations" -}}
{{- if .Values.metrics.scrapeAnnotations }}
prometheus.io/path: /metrics
prometheus.io/port: {{ .Values.metrics.port | quote }}
prometheus.io/scrape: "true"
{{- end }}
{{- with .Values.podAnnotations }}
{{ toYaml . }}
{{- end }}
{{- end -}}
