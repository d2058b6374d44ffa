{{/* The release's name, with the chart's behind it unless it has it already. */}}
{{- define "bpmgate.name" -}}
{{- $chart := default .Chart.Name .Values.nameOverride -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $chart) (contains $chart .Release.Name) | trunc 56 | trimSuffix "-" -}}
{{- end -}}

{{/* What finds the gateway's pods; it may never change. */}}
{{- define "bpmgate.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "bpmgate.labels" -}}
{{ include "bpmgate.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* The milliseconds of a duration of the gateway's configuration: `(list text key default)`. */}}
{{- define "bpmgate.milliseconds" -}}
{{- $found := regexFind (printf "(?m)^[^#\n]*\\b%s\\s*=\\s*[\"'][0-9]+(ms|s|m|h)[\"']" (index . 1)) (index . 0) | default (index . 2) -}}
{{- /* The last, as others may stand before it in an inline table. */ -}}
{{- $duration := regexFind "[0-9]+(ms|s|m|h)" (regexFind "[0-9]+[a-z]+.?$" $found) -}}
{{- $number := regexFind "[0-9]+" $duration | int64 -}}
{{- mul $number (get (dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000) (regexFind "[a-z]+" $duration)) -}}
{{- end -}}

{{/* The Secret whose keys are files; empty where there is none. */}}
{{- define "bpmgate.secret" -}}
{{- if .Values.secret.existing -}}
{{ .Values.secret.existing }}
{{- else if .Values.secret.files -}}
{{ include "bpmgate.name" . }}
{{- end -}}
{{- end -}}
