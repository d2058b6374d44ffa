/** What the engine's form variables leave out and the model says: labels, types without default, choices. */
export interface FormField {
  name: string;
  label: string;
  type: string;
  value: unknown;
  required: boolean;
  choices: { id: string; name: string }[];
}

interface Variable {
  type?: string | null;
  value?: unknown;
}

const INITIATOR = /^initiator(Email|Name)?$/;

/**
 * The fields to ask for at a start event (`null`) or user task: the model's form fields where it has
 * some, else the form variables as they are.
 */
export function formFields(
  variables: Record<string, Variable>,
  xml: string | undefined,
  taskKey: string | null,
): FormField[] {
  const modelled = xml ? modelFields(xml, taskKey) : [];
  if (modelled.length > 0)
    return modelled.map((field) => ({ ...field, value: variables[field.name]?.value ?? field.value }));
  return Object.entries(variables)
    .filter(([name]) => !INITIATOR.test(name))
    .map(([name, variable]) => ({
      name,
      label: "",
      type: variable.type ?? "String",
      value: variable.value,
      required: false,
      choices: [],
    }));
}

function modelFields(xml: string, taskKey: string | null): FormField[] {
  const model = new DOMParser().parseFromString(xml, "application/xml");
  const elements = [...model.getElementsByTagNameNS("*", taskKey === null ? "startEvent" : "userTask")];
  const element = taskKey === null ? elements[0] : elements.find((one) => one.getAttribute("id") === taskKey);
  const fields = element ? [...element.getElementsByTagNameNS("*", "formField")] : [];
  return fields.map((field) => ({
    name: field.getAttribute("id") ?? "",
    label: field.getAttribute("label") ?? "",
    type: TYPES[field.getAttribute("type") ?? ""] ?? "String",
    value: field.getAttribute("defaultValue") ?? undefined,
    required: [...field.getElementsByTagNameNS("*", "constraint")].some(
      (constraint) => constraint.getAttribute("name") === "required",
    ),
    choices: [...field.getElementsByTagNameNS("*", "value")].map((choice) => ({
      id: choice.getAttribute("id") ?? "",
      name: choice.getAttribute("name") ?? choice.getAttribute("id") ?? "",
    })),
  }));
}

/** The types of form fields, as the types of variables. */
const TYPES: Record<string, string> = {
  boolean: "Boolean",
  date: "Date",
  enum: "String",
  long: "Long",
  string: "String",
};
