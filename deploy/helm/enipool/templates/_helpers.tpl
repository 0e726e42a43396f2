{{- define "enipool.labels" -}}
app.kubernetes.io/name: enipool
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "enipool.selector" -}}
app.kubernetes.io/name: enipool
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "enipool.image" -}}
{{ .image.repository }}:{{ .image.tag | default .root.Chart.AppVersion }}
{{- end }}

{{- /* Where the API server is, without a Service. */}}
{{- define "enipool.apiServerEnv" -}}
{{- with .Values.apiServer }}
{{- if .host }}
- name: KUBERNETES_SERVICE_HOST
  value: {{ .host | quote }}
- name: KUBERNETES_SERVICE_PORT
  value: {{ .port | quote }}
{{- end }}
{{- end }}
{{- end }}

{{- define "enipool.extraEnv" -}}
{{- range $name, $value := . }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}

{{- /* An "unset" of the AWS plugin's settings: absent or empty. */}}
{{- define "enipool.isSet" -}}
{{- if and (not (kindIs "invalid" .)) (ne (toString .) "") }}yes{{ end -}}
{{- end }}

{{- /* The class `default` in YAML: the AWS plugin's settings, then the class's own values. */}}
{{- define "enipool.defaultClass" -}}
{{- $env := .Values.env -}}
{{- $spec := dict -}}
{{- $prefix := eq (toString $env.ENABLE_PREFIX_DELEGATION) "true" -}}
{{- if $prefix }}{{- $_ := set $spec "addressing" "Prefix" }}{{- end -}}
{{- $byAddress := or (include "enipool.isSet" $env.WARM_IP_TARGET) (include "enipool.isSet" $env.MINIMUM_IP_TARGET) -}}
{{- if include "enipool.isSet" $env.WARM_IP_TARGET }}{{- $_ := set $spec "warmIPTarget" (int $env.WARM_IP_TARGET) }}{{- end -}}
{{- if include "enipool.isSet" $env.MINIMUM_IP_TARGET }}{{- $_ := set $spec "minimumIPTarget" (int $env.MINIMUM_IP_TARGET) }}{{- end -}}
{{- if not $byAddress }}
{{- if $prefix }}
{{- if include "enipool.isSet" $env.WARM_PREFIX_TARGET }}{{- $_ := set $spec "warmPrefixTarget" (int $env.WARM_PREFIX_TARGET) }}{{- end -}}
{{- else if include "enipool.isSet" $env.WARM_ENI_TARGET }}{{- $_ := set $spec "warmENITarget" (int $env.WARM_ENI_TARGET) }}{{- end -}}
{{- end -}}
{{- if include "enipool.isSet" $env.MAX_ENI }}{{- $_ := set $spec "maxENIs" (int $env.MAX_ENI) }}{{- end -}}
{{- if include "enipool.isSet" $env.IP_COOLDOWN_PERIOD }}{{- $_ := set $spec "cooldownSeconds" (int $env.IP_COOLDOWN_PERIOD) }}{{- end -}}
{{- if include "enipool.isSet" $env.AWS_VPC_ENI_MTU }}{{- $_ := set $spec "mtu" (int $env.AWS_VPC_ENI_MTU) }}{{- end -}}
{{- if eq (toString $env.AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG) "true" }}{{- $_ := set $spec "usePrimaryENI" false }}{{- end -}}
{{- if include "enipool.isSet" $env.ADDITIONAL_ENI_TAGS }}{{- $_ := set $spec "eniTags" (fromJson $env.ADDITIONAL_ENI_TAGS) }}{{- end -}}
{{- $snat := dict -}}
{{- if eq (toString $env.AWS_VPC_K8S_CNI_EXTERNALSNAT) "true" }}{{- $_ := set $snat "mode" "External" }}
{{- else if include "enipool.isSet" $env.AWS_VPC_K8S_CNI_RANDOMIZESNAT }}
{{- $modes := dict "prng" "RandomFully" "hashrandom" "HashRandom" "none" "Sequential" -}}
{{- $_ := set $snat "mode" (get $modes $env.AWS_VPC_K8S_CNI_RANDOMIZESNAT) }}
{{- end -}}
{{- if include "enipool.isSet" $env.AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS }}
{{- $_ := set $snat "excludeCIDRs" (splitList "," (nospace $env.AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS)) }}
{{- end -}}
{{- if $snat }}{{- $_ := set $spec "snat" $snat }}{{- end -}}
{{- mergeOverwrite $spec (deepCopy .Values.defaultClass.spec) | toYaml -}}
{{- end }}
